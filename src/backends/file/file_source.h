#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "backends/file/descriptor.h"
#include "backends/file/line_event.h"
#include "backends/file/line_reader.h"
#include "backends/file/position_file.h"
#include "backends/file/rotated.h"
#include "backends/file/source_options.h"
#include "connector/source.h"
#include "connector/unsettled.h"
#include "core/deadline.h"
#include "core/mutex.h"

namespace relay::file {

/// Reads the lines of a file, waits for more, and follows it through rotations. How far its lines
/// are settled is kept in a small file, so that a restart goes on there.
class FileSource : public Source {
 public:
  FileSource(SourceOptions options, LineRules rules, FieldMapping mapping);
  ~FileSource() override;

  Result<void> open(std::stop_token stop) override;
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline,
                           std::stop_token stop) override;
  Result<void> acknowledge(const Position& settled, std::span<const DeadLetter>) override;
  std::optional<std::int64_t> lag() override;
  void close() override;
  Inspection inspect(std::stop_token stop) override;
  std::vector<Claim> claims() const override;

 private:
  /// The file that is being read.
  struct Current {
    Descriptor file;
    FilePosition start;
    std::string id_prefix;  // of the ids that are made up for its lines
    std::unique_ptr<LineReader> lines;
    bool ended = false;  // there will be no more of it
  };

  Result<bool> enter_next();
  Result<void> begin(const FoundFile& file);
  Result<bool> read_more();
  bool was_replaced() const;
  void add(RecordBatch& batch, const Line& line);
  Result<void> write_position() RELAY_REQUIRES(mutex_);

  const SourceOptions options_;
  const LineRules rules_;
  const FieldMapping mapping_;
  const PositionFile position_file_;
  const std::shared_ptr<const TableShape> shape_;
  std::deque<FoundFile> coming_;
  std::unique_ptr<Current> current_;

  Mutex mutex_;
  Unsettled<FilePosition> unsettled_ RELAY_GUARDED_BY(mutex_);  // where each record ends
  std::optional<FilePosition> settled_ RELAY_GUARDED_BY(mutex_);
  std::optional<FilePosition> written_ RELAY_GUARDED_BY(mutex_);
  SteadyClock::time_point write_after_ RELAY_GUARDED_BY(mutex_){};
};

}  // namespace relay::file
