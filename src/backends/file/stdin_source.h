#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "backends/file/line_event.h"
#include "backends/file/line_reader.h"
#include "connector/source.h"
#include "core/mutex.h"

namespace relay::file {

/// Reads the lines of standard input. Its end is no error: the pipeline is idle then. A line
/// cannot be read again, so lines that were read and are not settled are kept, and come again when
/// the source is opened again; with the process they are gone.
class StdinSource : public Source {
 public:
  StdinSource(LineRules rules, FieldMapping mapping);
  ~StdinSource() override;

  /// Misconfigured: another pipeline reads standard input.
  Result<void> open(std::stop_token stop) override;
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline,
                           std::stop_token stop) override;
  Result<void> acknowledge(const Position& settled, std::span<const DeadLetter>) override;
  std::optional<std::int64_t> lag() override;
  void close() override;
  std::vector<Claim> claims() const override;

 private:
  struct Kept {
    std::int64_t number;
    std::string text;
    bool too_long;
  };
  bool take_lines(RecordBatch& batch, const ReadLimits& limits);
  void add(RecordBatch& batch, const Kept& line);

  const LineRules rules_;
  const FieldMapping mapping_;
  const std::shared_ptr<const TableShape> shape_;
  const std::string origin_;  // of ids: this process's standard input, and no other one's
  LineReader lines_;
  bool ended_ = false;
  bool holds_input_ = false;

  Mutex mutex_;
  std::deque<Kept> unsettled_ RELAY_GUARDED_BY(mutex_);    // in order
  std::size_t given_ RELAY_GUARDED_BY(mutex_) = 0;         // of them are in batches
  std::int64_t last_number_ RELAY_GUARDED_BY(mutex_) = 0;  // of lines that were read
};

}  // namespace relay::file
