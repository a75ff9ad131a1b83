#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>

#include "connector/source.h"
#include "connector/wake.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/record.h"
#include "outbox/claim_check.h"
#include "outbox/outbox_info.h"
#include "outbox/outbox_options.h"
#include "outbox/outbox_status.h"
#include "outbox/read_policy.h"
#include "outbox/replay_reader.h"
#include "outbox/row_decoder.h"
#include "outbox/row_stream.h"
#include "outbox/starting_position.h"
#include "postgres/pool.h"
#include "state/positions.h"

namespace relay::outbox {

/// Reads an outbox from a position on, in order, never skipping a row. After an error of class
/// transient the next read verifies that the last row that was handed out is unchanged, and goes on
/// behind it. One thread at a time.
class OutboxReader {
 public:
  /// Begins behind the position of `start`. The writer that it waits for is shown in `status`.
  OutboxReader(postgres::Pool& pool, std::shared_ptr<Wake> wake, OutboxInfo outbox,
               const OutboxOptions& options, StartingPosition start, OutboxStatus& status);

  /// As Source::read. Misconfigured: rows are gone, or the outbox is. Fenced: rows that were handed
  /// out no longer exist, so the records under way must not be settled.
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline, std::stop_token stop);

  /// Rows `from`..`to` once more; see Source::read_range.
  ReplayReader replay(std::int64_t from, std::int64_t to) const {
    return {from, to, claim_limits_};
  }
  Result<RecordBatch> read(ReplayReader& replay, const ReadLimits& limits, std::stop_token stop);

  /// Rows that are there beyond those handed out, counted up to 100,000.
  Result<std::int64_t> rows_beyond(std::stop_token stop);
  /// Rows are known to wait, or may be on their way, that were not handed out.
  bool more_to_come() const { return claim_ || policy_.expects_rows(wake_->last_value()); }
  /// Every row up to here was handed out, or is not to be.
  std::int64_t frontier() const { return read_.frontier; }
  /// The last row that was handed out.
  std::int64_t last_row() const { return read_.last.id; }
  /// What the rows were read from that were handed out last (PositionFacts).
  const std::string& history() const { return read_.history; }
  /// The last row that was begun has parts that were not handed out.
  bool within_row() const { return claim_.has_value(); }

 private:
  Result<postgres::Lease> borrow(std::stop_token stop);
  Result<void> verify(postgres::Connection& connection, std::stop_token stop);

  Result<RecordBatch> read_some(const ReadLimits& limits, Deadline deadline, std::stop_token stop);
  Result<bool> wait(Deadline deadline, std::stop_token stop);
  Result<bool> wait_for_news(Deadline deadline, std::stop_token stop);
  bool pause_where_fruitless(std::stop_token stop);
  Result<bool> wait_for_writers(Deadline deadline, std::stop_token stop);
  Result<bool> probe(postgres::Connection& connection, std::stop_token stop);
  Result<ReadPolicy::Look> look(postgres::Connection& connection, std::stop_token stop);

  Result<RowStream> send(postgres::Lease lease, const ReadLimits& limits);
  Result<RowStream> stream(const ReadLimits& limits, std::stop_token stop);
  Result<RecordBatch> read_page(const ReadLimits& limits, std::stop_token stop);
  Result<bool> next_row(RowStream& rows, std::stop_token stop);
  Result<void> take_rows(RowStream& rows, const ReadLimits& limits, RecordBatch& batch,
                         std::stop_token stop);
  bool take_row(OutboxRow& row, RecordBatch& batch);
  Result<void> look_for_lost_rows(postgres::Connection& connection, std::int64_t began_at,
                                  std::stop_token stop);
  Result<RecordBatch> read_claim(const ReadLimits& limits, std::stop_token stop);
  void note_handed_out(const RecordBatch& batch);

  postgres::Pool& pool_;
  const std::shared_ptr<Wake> wake_;
  const OutboxInfo outbox_;
  const state::PositionKey key_;
  const ClaimCheck::Limits claim_limits_;
  OutboxStatus& status_;
  RowDecoder decoder_;
  ReadPolicy policy_;
  StreamKeeper kept_;
  ReadSoFar read_;  // and handed out
  std::optional<ClaimCheck> claim_;
  std::int64_t resume_row_;  // where the first claim check is to be resumed
  std::uint64_t pokes_;
  int fruitless_pages_ = 0;  // in a row brought nothing, the last one at this time
  SteadyClock::time_point fruitless_at_{};
  std::optional<std::uint64_t> verified_losses_;  // empty: `read_` is to be verified
  std::uint64_t losses_;                          // when it was verified last
};

}  // namespace relay::outbox
