#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "connector/source.h"
#include "connector/wake.h"
#include "core/mutex.h"
#include "outbox/backlog.h"
#include "outbox/outbox_options.h"
#include "outbox/outbox_reader.h"
#include "outbox/outbox_status.h"
#include "outbox/position_keeper.h"
#include "outbox/replay_reader.h"
#include "outbox/snapshot_reader.h"
#include "outbox/underway.h"
#include "postgres/pool.h"

namespace relay::outbox {

/// Reads an outbox without ever skipping a row (docs: reading without skipping), from the position
/// that it takes ownership of in `open`. Borrows a connection from the pool for each operation.
/// Threads as for Source.
class OutboxSource final : public Source {
 public:
  /// Without a pool `open` is an error, and nothing but `close` may be called after it.
  OutboxSource(OutboxOptions options, postgres::Pool* pool, std::shared_ptr<Wake> wake);

  Result<void> open(std::stop_token) override;
  Result<RecordBatch> read(const ReadLimits&, Deadline, std::stop_token) override;
  Result<void> acknowledge(const Position&, std::span<const DeadLetter>) override;
  bool keeps_dead_letters() const override { return true; }
  std::optional<std::int64_t> lag() override;
  bool more_to_come() const override;
  void close() override;

  /// Reads `from`..`to` once more beside the normal reading, with `suffix` for the ids; the
  /// position is not moved. Empty when the range is done.
  Result<RecordBatch> read_range(std::int64_t from, std::int64_t to, const std::string& suffix,
                                 const ReadLimits&, std::stop_token) override;

  std::string watched_sequence() const override { return status_.sequence(); }
  OpenWriter oldest_open_writer() const override { return status_.writer(); }
  std::optional<EndReport> report() const override;

 private:
  Result<void> try_open(std::stop_token stop);
  Result<RecordBatch> read_snapshot(SnapshotReader& snapshot, const ReadLimits& limits,
                                    Deadline deadline, std::stop_token stop);
  std::shared_ptr<SnapshotReader> snapshot() const RELAY_EXCLUDES(mutex_);
  void set_snapshot(std::shared_ptr<SnapshotReader> snapshot) RELAY_EXCLUDES(mutex_);
  void count_backlog();
  Result<void> pass_over_gap(bool now);
  Error explained(Error error, std::stop_token stop);

  const OutboxOptions options_;
  postgres::Pool* const pool_;
  const std::shared_ptr<Wake> wake_;
  PositionKeeper keeper_;
  Underway underway_;
  OutboxStatus status_;
  mutable Mutex mutex_;
  /// Reads first, until all rows of the table are delivered; null: nothing comes first.
  std::shared_ptr<SnapshotReader> snapshot_ RELAY_GUARDED_BY(mutex_);

  // Of the reader thread.
  std::unique_ptr<OutboxReader> reader_;
  bool open_again_ = false;                      // what was read last was an error of configuration
  std::map<std::string, ReplayReader> replays_;  // by the suffix of their ids
  Backlog backlog_;
  bool adopted_ = false;
  std::int64_t written_to_ = 0;           // the position is here, or further
  std::string written_history_;           // of the table when that was written
  SteadyClock::time_point written_at_{};  // when ids without rows were passed last
  std::stop_token stop_;
};

}  // namespace relay::outbox
