#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "connector/source.h"
#include "core/deadline.h"
#include "outbox/horizon.h"
#include "outbox/page_size.h"
#include "state/skip_set.h"

namespace relay::outbox {

/// Decides what the reader of an outbox does next: fetch rows, wait for news, or wait for the
/// writers that hold ids back; how many rows a statement asks for; and which of them are handed
/// out. No row is passed that may still become visible (Horizon). Pure: no I/O, no thread, no clock
/// but the times that it is given.
///
/// The reader tells it what it sees, in this order. A statement: `begin_statement`; then for each
/// batch of it `begin_page`, `take` for each row, `conclude`. A probe: `probed`; and while it waits
/// for writers `next_round` before and `looked` after that.
///
/// `announced` is the newest id that the sweep has announced.
class ReadPolicy {
 public:
  using Time = SteadyClock::time_point;

  /// Reads on behind the row `start`, and does not hand out rows of `skipped`.
  ReadPolicy(std::int64_t start, state::SkipSet skipped)
      : horizon_(start), skipped_(std::move(skipped)) {}

  enum class Step { fetch, wait_for_news, wait_for_writers };
  Step next() const { return next_; }
  /// Every row up to here was handed out or passed.
  std::int64_t frontier() const { return horizon_.frontier(); }
  /// Rows are known to wait, or may be on their way.
  bool expects_rows(std::int64_t announced) const {
    return next_ != Step::wait_for_news || known(announced) > frontier();
  }
  /// The last row that was passed because it is to be skipped; 0: none since the last restart.
  std::int64_t skipped_to() const { return skipped_to_; }

  /// Reads on behind the row `id`, and forgets what it saw of writers.
  void restart(std::int64_t id);
  /// The row `id` and those before it were handed out.
  void handed_out(std::int64_t id);

  // ---- statements and their rows

  struct Query {
    std::int64_t beyond = 0;
    std::int64_t rows = 0;
  };
  /// The statement to send now: rows behind an id, at most so many, for so many batches.
  Query begin_statement(ReadLimits limits, std::size_t batches);

  /// A batch of a statement that may bring `rows` more rows begins.
  void begin_page(std::int64_t rows);

  enum class Verdict {
    hand_out,
    skip,
    claim_check,  ///< its rows are read next; the statement's further rows are left
    leave,        ///< this row and those behind it are left for a later statement
  };
  /// The next row of the statement.
  Verdict take(std::int64_t id, std::size_t bytes, bool is_claim_check);
  /// After `take`, with so many records in the batch: the rows behind it are for the next batch.
  bool page_is_full(std::size_t records, const ReadLimits& limits);
  /// The statement's further rows are left: how many of them to take until it is cancelled.
  std::size_t worth_taking(std::int64_t announced) const;

  /// The statement looked for rows up to this id only.
  void reached(std::int64_t until) { page_.until = until; }

  /// What is to be done with the statement at the end of a page.
  struct PageEnd {
    bool goes_on = false;       ///< it brings the next batch too
    bool leave = false;         ///< its further rows are left, and read by another statement
    bool read_ahead = false;    ///< there are more rows: the next statement may be sent now
    bool gap_passed = false;    ///< ids without a row were passed: they must not be lost rows
    std::int64_t began_at = 0;  ///< the frontier when the page began
  };
  PageEnd conclude(const ReadLimits& limits, std::int64_t announced, Time now);

  // ---- waiting

  /// Without news the outbox is to be probed at this time.
  Time next_probe() const { return next_probe_; }
  /// The outbox was probed. True: fetching will bring something.
  bool probed(const Tip& tip, Time now);

  /// How to wait for writers: pause, then fetch, or probe and look who still holds ids back.
  struct Round {
    std::chrono::milliseconds pause{0};
    bool fetch = false;
  };
  Round next_round(std::int64_t announced, Time now);

  enum class Look { fetch, still_waiting, nothing_to_wait_for };
  /// After a probe: these transactions may have drawn ids up to the sequence that it saw.
  Look looked(std::span<const Holder> holders);
  /// The writers have held ids back so long that the oldest one is to be looked up and shown now.
  bool is_writer_due(Time now);
  std::chrono::duration<double> waiting_for_writers(Time now) const { return now - blocked_since_; }

 private:
  /// The rows of one statement that make a batch.
  struct Page {
    std::int64_t asked = 0;
    std::int64_t rows = 0;  // that came
    std::size_t bytes = 0;
    std::int64_t began_at = 0;
    std::int64_t stopped_at = 0;     // a row behind an open gap
    std::int64_t until = INT64_MAX;  // the statement looks no further
    bool gap_passed = false;
    bool full = false;         // the statement has rows for the next batch
    bool claim_check = false;  // that is why
  };

  std::int64_t known(std::int64_t announced) const {
    return announced > sequence_seen_ ? announced : sequence_seen_;
  }
  void block(std::int64_t began_at, Time now);

  Horizon horizon_;
  state::SkipSet skipped_;       // published before this reader's position began
  std::int64_t skipped_to_ = 0;  // the last of them that was passed
  PageSize size_;
  Page page_;
  Step next_ = Step::fetch;
  std::int64_t sequence_seen_ = 0;
  Time next_probe_{};

  // While it waits for writers.
  std::int64_t behind_ = 0;  // the first row behind an open gap; 0: the gap is at the tail
  int rounds_ = 0;
  Time blocked_since_{};
  Time next_show_{};
};

}  // namespace relay::outbox
