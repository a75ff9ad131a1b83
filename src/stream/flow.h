#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/deadline.h"
#include "stream/assembler.h"
#include "stream/event_queue.h"
#include "stream/transaction_ledger.h"

namespace relay::stream {

/// When events no longer wait in memory for their sink.
struct SpoolLimits {
  std::chrono::milliseconds after{};  ///< one has been unsettled for so long
  std::uint64_t wal = 0;              ///< so much of the log is kept for them, in bytes
  std::size_t events = 10000;         ///< the queue is full
  std::size_t bytes = 8u << 20;       ///< the same
};

/// Which way events take from the log to the pipeline. Live: through a queue in memory; the server
/// keeps the log for those that are not settled. Spooling: the receiver notes only which
/// transactions passed, in the backlog, so that the server may forget them; the pipeline reads
/// their events from the table, in the order of commits. Decides when to go from one to the other.
/// Pure: no clock, I/O or thread.
class Flow {
 public:
  using Time = SteadyClock::time_point;

  explicit Flow(SpoolLimits limits) : limits_(limits) {}

  /// Before the first transaction, and when the stream begins anew from what is stored:
  /// transactions are numbered behind `last_n`, which no number before has passed, and the backlog
  /// holds `backlog_events` behind `cursor`. What was received and is not in the backlog comes
  /// again.
  void begin(std::int64_t last_n, std::int64_t backlog_events);

  // For the receiver.
  /// False: nothing more may be received until events were taken, or spooling begins.
  bool has_room() const;
  void take(const Assembler::Event& event);
  void end(const Assembler::End& end, Time now);
  void passed(postgres::Lsn end);
  /// Goes from one way to the other where that is due. `within`: between the first event of a
  /// transaction and its end.
  void switch_over(Time now, bool within);
  bool spooling() const { return spooling_; }
  std::int64_t last_n() const { return last_n_; }
  /// While it spools: what is to be recorded in the backlog.
  std::vector<Transaction> unrecorded() const;
  std::size_t unrecorded_count() const { return spooling_ ? ledger_.open().size() : 0; }
  /// All up to the `n`th are recorded.
  void recorded(std::int64_t n);

  // For the reader.
  enum class From { nothing, queue, backlog };
  From next() const;
  const Cursor& cursor() const { return cursor_; }
  /// Moves events from the queue into the batch. `next` said `queue`.
  void take(const ReadLimits& limits, RecordBatch& batch);
  /// The last transaction that comes from the backlog.
  std::int64_t backlog_end() const { return spooling_ ? recorded_n_ : live_from_ - 1; }
  /// `events` were read from the backlog behind `cursor`. `last`: the place of the last one.
  void paged(const Cursor& last, std::int64_t events);
  /// The backlog holds nothing behind `cursor` up to `end`, which is what `backlog_end` was before
  /// it was looked at.
  void backlog_read(std::int64_t end);

  // For the sender.
  /// All up to the `n`th are settled.
  void settle(std::int64_t n);

  /// The backlog need not keep the transactions up to the one that this returns. Nothing: none that
  /// it was not told of (`deleted`).
  std::optional<std::int64_t> to_delete() const;
  void deleted(std::int64_t n) { deleted_n_ = n; }

  const TransactionLedger& ledger() const { return ledger_; }
  TransactionLedger& ledger() { return ledger_; }
  /// Events that wait in the queue or in the backlog.
  std::int64_t waiting() const;
  std::int64_t backlog_events() const { return backlog_events_; }

 private:
  const SpoolLimits limits_;
  TransactionLedger ledger_;
  EventQueue queue_;
  bool spooling_ = false;
  bool live_wanted_ = false;       ///< the reader comes to the end of the backlog
  std::int64_t handed_out_n_ = 0;  ///< the last transaction of which all events were
  std::int64_t stuck_n_ = 0;       ///< until this one is settled the sink takes nothing
  std::int64_t last_n_ = 0;        ///< the last transaction that was received whole
  std::int64_t recorded_n_ = 0;    ///< the last one in the backlog
  std::int64_t settled_n_ = 0;
  std::int64_t deleted_n_ = 0;  ///< the last one that was deleted from the backlog
  std::int64_t live_from_ = 1;  ///< the first one that goes through the queue
  std::int64_t backlog_events_ = 0;
  Cursor cursor_;
  std::optional<Time> full_since_;

  bool must_spool(Time now);
  void handed_out(const Cursor& last);
  bool fits_queue() const { return backlog_events_ <= static_cast<std::int64_t>(limits_.events); }
};

}  // namespace relay::stream
