#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>

#include "connector/source.h"
#include "connector/wake.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/record.h"
#include "outbox/claim_check.h"
#include "outbox/horizon.h"
#include "outbox/look.h"
#include "outbox/outbox_info.h"
#include "outbox/outbox_position.h"
#include "outbox/outbox_source.h"
#include "outbox/row_decoder.h"
#include "postgres/pool.h"
#include "state/skip_set.h"

namespace relay::outbox {

/// Reads an outbox from a position on, in order, never skipping a row. One thread at a time; what
/// is const, `lag_beyond` aside, any. After an error of class transient the next read goes on
/// behind the last record that was handed out, once it was seen that this row is still what it was.
class OutboxReader final : private postgres::Keeper {
 public:
  OutboxReader(postgres::Pool& pool, std::shared_ptr<Wake> wake, OutboxInfo outbox,
               state::PositionKey key, const OutboxOptions& options, Position start,
               state::SkipSet skipped);
  ~OutboxReader() override;

  /// As Source::read. Misconfigured: rows are gone, or the outbox is. Fenced: what was handed out
  /// is not there any more, so that what is under way must not be settled.
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline, std::stop_token stop);

  /// Rows from..to that were read before, after `done`; see Source::read_range.
  struct Range {
    std::int64_t from = 0;
    std::int64_t to = 0;
    std::int64_t done = 0;  ///< up to here
    std::unique_ptr<ClaimCheck> claim;
  };
  Result<RecordBatch> read_range(Range& range, const ReadLimits& limits, std::stop_token stop);

  /// Rows that are there beyond those handed out, counted up to 100,000.
  Result<std::int64_t> rows_beyond(std::stop_token stop);
  /// Something is known to wait that was not handed out.
  bool more_to_come() const { return claim_ || fetch_now_ || blocked_ || known() > frontier(); }
  /// The last row that was begun has parts that were not handed out.
  bool within_row() const { return claim_ != nullptr; }
  std::int64_t frontier() const { return horizon_.frontier(); }
  /// Any thread.
  OpenWriter oldest_open_writer() const;

 private:
  /// Without any announcement the outbox itself is asked this often.
  static constexpr std::chrono::milliseconds kProbeEvery{1000};

  /// A statement under way: its rows come while those before them are worked on.
  struct Statement {
    postgres::Lease lease;
    std::int64_t rows;  ///< that may still come
    SteadyClock::time_point since;
  };
  /// The rows of one statement that make a batch.
  struct Page {
    std::int64_t rows = 0;  ///< that came
    std::int64_t asked = 0;
    std::int64_t passed_from = 0;  ///< the frontier when it began
    bool gap_passed = false;
    bool full = false;            ///< the statement goes on with the next batch
    bool cut = false;             ///< left before its end, for a claim check
    std::int64_t stopped_at = 0;  ///< a row behind an open gap
    std::size_t bytes = 0;
  };

  void give_back(std::chrono::milliseconds unused, Deadline deadline) override;
  std::optional<Statement> take_kept();
  void keep(Statement statement);

  Result<postgres::Lease> borrow(std::stop_token stop);
  Result<void> verify(postgres::Connection& connection, std::stop_token stop);
  Result<RecordBatch> read_some(const ReadLimits& limits, Deadline deadline, std::stop_token stop);
  bool wait_for_news(Deadline deadline, std::stop_token stop, Result<void>& trouble);
  Result<bool> wait_for_writers(Deadline deadline, std::stop_token stop);
  Result<void> take_look(postgres::Connection& connection, std::int64_t sequence,
                         std::stop_token stop);
  Result<Tip> tip(postgres::Connection& connection, std::stop_token stop);

  std::int64_t page_size(const ReadLimits& limits) const;
  void jump();
  Result<Statement> send(postgres::Lease lease, const ReadLimits& limits);
  Result<Statement> under_way(const ReadLimits& limits, std::stop_token stop);
  Result<RecordBatch> fetch_page(const ReadLimits& limits, std::stop_token stop);
  Result<void> take_rows(postgres::Connection& connection, const ReadLimits& limits, Page& page,
                         RecordBatch& batch, std::stop_token stop);
  bool take_row(OutboxRow& row, Page& page, RecordBatch& batch);
  void leave(postgres::Connection& connection, const Page& page);
  void conclude(Page& page);
  Result<void> look_for_lost_rows(postgres::Connection& connection, const Page& page,
                                  std::stop_token stop);
  Result<bool> range_claim(Range& range, postgres::Connection& connection, const ReadLimits& limits,
                           RecordBatch& batch, std::stop_token stop);
  Result<bool> range_page(Range& range, postgres::Connection& connection, const ReadLimits& limits,
                          RecordBatch& batch, std::stop_token stop);
  Result<RecordBatch> read_claim(const ReadLimits& limits, std::stop_token stop);
  RecordBatch new_batch() const;
  const std::shared_ptr<const TableShape>& shape_of(const OutboxRow& row);
  void note_handed_out(const RecordBatch& batch);
  std::int64_t known() const;

  postgres::Pool& pool_;
  const std::shared_ptr<Wake> wake_;
  const OutboxInfo outbox_;
  const state::PositionKey key_;
  const std::int64_t delta_max_rows_;
  const std::int64_t max_record_bytes_;
  RowDecoder decoder_;

  /// Shapes of rows whose key columns had other names, by what their payloads say.
  std::map<std::string, std::shared_ptr<const TableShape>, std::less<>> shapes_;

  Horizon horizon_;
  state::SkipSet skipped_;       // published before this reader's position began
  std::int64_t skipped_to_ = 0;  // the last of them that was passed
  Position last_;                // of the last record that was handed out
  std::unique_ptr<ClaimCheck> claim_;
  std::int64_t resume_row_ = 0;  // where the first claim check is to be resumed
  std::int64_t sequence_seen_ = 0;
  std::uint64_t pokes_ = 0;
  std::uint64_t verified_losses_ = 0;
  bool verified_ = true;
  bool fetch_now_ = true;  // nothing was looked at yet
  SteadyClock::time_point next_probe_{};
  bool blocked_ = false;     // something was drawn that has not been seen
  std::int64_t behind_ = 0;  // the first row behind an open gap
  int rounds_ = 0;
  SteadyClock::time_point blocked_since_{};
  SteadyClock::time_point next_age_{};
  std::int64_t page_rows_ = 0;
  std::size_t mean_row_bytes_ = 512;

  std::mutex kept_mutex_;
  std::optional<Statement> kept_;

  mutable std::mutex writer_mutex_;
  OpenWriter writer_;
};

}  // namespace relay::outbox
