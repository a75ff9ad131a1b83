#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "connector/settled_rows.h"
#include "connector/source.h"
#include "connector/wake.h"
#include "postgres/pool.h"

namespace relay::outbox {

/// What an outbox source needs to be told.
struct OutboxOptions {
  std::string outbox;  ///< as the user names it: stream table, table, or application outbox
  std::string group;   ///< relay group: each group has its own positions
  std::string pipeline;
  std::string worker_id;
  std::string start = "earliest";
  std::int64_t max_record_bytes = 32 << 20;
  std::int64_t delta_max_rows = 1000;  ///< where a claim check is cut
  /// False: `open` takes no ownership and reads from `start`; `acknowledge` does nothing.
  bool owns = true;
  /// The relay's own database, where the operator accepts losses; null: it is the outbox's.
  postgres::Pool* control = nullptr;
  /// What the pipeline settled, for longer than this source lives; null: it is not remembered.
  std::shared_ptr<SettledRows> settled;
};

/// Reads an outbox without ever skipping a row (docs: reading without skipping), from the position
/// that it takes ownership of in `open`. Borrows a connection from the pool for each operation.
class OutboxSource final : public Source {
 public:
  /// Without a pool `open` is an error, and nothing else may be called.
  OutboxSource(OutboxOptions options, postgres::Pool* pool, std::shared_ptr<Wake> wake);
  ~OutboxSource() override;

  Result<void> open(std::stop_token) override;
  Result<RecordBatch> read(const ReadLimits&, Deadline, std::stop_token) override;
  Result<void> acknowledge(const Position&, std::span<const DeadLetter>) override;
  bool keeps_dead_letters() const override { return true; }
  std::optional<std::int64_t> lag() override;
  bool more_to_come() const override;
  void close() override;

  /// Reads `from`..`to` once more beside the normal reading, with `suffix` for the ids; the
  /// position is not moved. Called by the reader thread. Empty when the range is done.
  Result<RecordBatch> read_range(std::int64_t from, std::int64_t to, const std::string& suffix,
                                 const ReadLimits&, std::stop_token) override;

  std::string watched_sequence() const override;
  OpenWriter oldest_open_writer() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace relay::outbox
