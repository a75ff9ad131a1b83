#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "connector/source.h"
#include "core/dead_letter.h"
#include "core/mutex.h"
#include "core/record.h"
#include "outbox/outbox_info.h"
#include "outbox/outbox_options.h"
#include "outbox/row_decoder.h"
#include "outbox/snapshot_progress.h"
#include "outbox/starting_position.h"
#include "postgres/pool.h"

namespace relay::outbox {

/// Delivers the rows that a table has, and the changes meanwhile (sql/functions/251). Each step is
/// one REPEATABLE READ transaction. After an error the next read goes on behind what was handed
/// out. Positions of its records have a mark of their own: they are settled here, and nowhere else.
/// `read` is for the reader thread, `settle` for the sender's, the rest for any.
class SnapshotReader {
 public:
  /// What is stored of the snapshot under way of a position; nothing where none is.
  static Result<std::shared_ptr<SnapshotReader>> open(postgres::Pool& pool,
                                                      postgres::Connection& connection,
                                                      const OutboxInfo& outbox,
                                                      const OutboxOptions& options,
                                                      const state::Ownership& ownership,
                                                      Deadline deadline, std::stop_token stop);

  /// As Source::read. Fenced: rows that were handed out no longer exist.
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline, std::stop_token stop);
  /// Everything up to there is delivered. Positions of an earlier reader change nothing.
  Result<void> settle(const Position& settled, std::span<const DeadLetter> letters);

  /// Whether a position is one of a snapshot.
  static bool owns(const Position& position);
  /// All rows are delivered, and that is stored: reading goes on at `end`.
  bool is_finished() const RELAY_EXCLUDES(mutex_);
  Result<StartingPosition> end() const;
  const OutboxInfo& outbox() const { return outbox_; }
  EndReport report() const RELAY_EXCLUDES(mutex_);

 private:
  struct Plan {
    SnapshotMoment moment;
    std::string ids;  ///< a bigint[]
    std::int64_t first = 0;
    bool has_changes = false;
    bool claim_check = false;
    bool complete = false;
  };
  /// A claim check whose rows are not all handed out.
  struct Claim {
    std::int64_t outbox_id = 0;
    SnapshotMoment moment;  ///< once it is delivered
    std::int64_t last_row = 0;
    int parts = 0;
  };
  struct Page {
    SnapshotProgress::Page facts;
    std::vector<std::string> rows;  ///< empty: too large to be fetched
  };

  SnapshotReader(postgres::Pool& pool, const OutboxInfo& outbox, const OutboxOptions& options,
                 const state::Ownership& ownership, SnapshotState state, std::int64_t total);

  SnapshotState now() const RELAY_EXCLUDES(mutex_);
  Result<void> read_step(const ReadLimits& limits, RecordBatch& batch, std::stop_token stop);
  Result<Plan> plan(postgres::Connection& connection, const SnapshotState& from,
                    const ReadLimits& limits, std::stop_token stop);
  Result<void> add_changes(postgres::Connection& connection, const Plan& plan, RecordBatch& batch,
                           std::stop_token stop);
  Result<bool> add_claim_part(postgres::Connection& connection, RecordBatch& batch,
                              std::stop_token stop);
  Result<Page> fetch_page(postgres::Connection& connection, const SnapshotState& from,
                          std::stop_token stop);
  Result<void> add_page(Page& page, const SnapshotState& from, const SnapshotMoment& moment,
                        RecordBatch& batch);
  Result<void> store_ahead(postgres::Connection& connection, const std::string& key,
                           std::stop_token stop);
  void number(RecordBatch& batch) RELAY_REQUIRES(mutex_);
  Result<void> wait_for_end(Deadline deadline, std::stop_token stop);
  Result<void> store(const std::optional<SnapshotState>& state,
                     std::span<const DeadLetter> letters);
  Result<void> store_state(postgres::Connection& connection, const SnapshotState& state,
                           Deadline deadline);

  postgres::Pool& pool_;
  const OutboxInfo outbox_;
  const state::PositionKey key_;
  const std::string token_;
  const std::string mark_;
  const std::int64_t max_record_bytes_;
  const std::int64_t page_rows_;
  const std::int64_t total_;

  // Of the reader thread.
  RowDecoder decoder_;
  std::optional<Claim> claim_;

  mutable Mutex mutex_;
  SnapshotProgress progress_ RELAY_GUARDED_BY(mutex_);
  std::int64_t rows_settled_ RELAY_GUARDED_BY(mutex_) = 0;
  bool finished_ RELAY_GUARDED_BY(mutex_) = false;
};

}  // namespace relay::outbox
