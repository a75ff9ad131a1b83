#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "connector/inspection.h"
#include "core/dead_letter.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/record.h"

namespace relay {

/// How much one read may bring. A batch never exceeds `bytes` by more than its largest record.
struct ReadLimits {
  std::size_t records = 1000;
  std::size_t bytes = 8u << 20;
};

/// Of the transactions that may still bring rows before those that a source could read next, the
/// one that has been open longest.
struct OpenWriter {
  int pid = 0;         ///< 0: none, or a prepared transaction
  double seconds = 0;  ///< 0: none holds the source back
};

/// Where records come from. `open`, `read`, `read_range`, `tend` and `lag` are called by the reader
/// thread; `acknowledge` by the sender thread, while one of them may be under way; `close` when
/// both are done.
class Source {
 public:
  virtual ~Source() = default;

  virtual Result<void> open(std::stop_token) = 0;

  /// The next records, in order. Returns as soon as there is one; an empty batch when the deadline
  /// passed or a stop was asked for. After an error of class transient the next call starts again
  /// from the last acknowledged position or later, never skipping a record.
  virtual Result<RecordBatch> read(const ReadLimits&, Deadline, std::stop_token) = 0;

  /// Everything up to and including `settled` is delivered or in the dead letters. Where the source
  /// keeps its position in the relay's own database, `dead_letters` are stored in the same
  /// transaction. May be written a moment later (coalesced); the same position again, without dead
  /// letters, writes what is due. An error of class fenced: another instance owns the pipeline now.
  virtual Result<void> acknowledge(const Position& settled,
                                   std::span<const DeadLetter> dead_letters) = 0;

  /// True where `acknowledge` stores dead letters itself. Elsewhere they are stored before it.
  virtual bool keeps_dead_letters() const { return false; }

  /// The records `from`..`to` once more, with `suffix` behind the ids of their messages, beside the
  /// normal reading: the position is not moved. An empty batch: the range is done. Goes on behind
  /// what the last call for the same suffix gave.
  virtual Result<RecordBatch> read_range(std::int64_t from, std::int64_t to,
                                         const std::string& suffix, const ReadLimits&,
                                         std::stop_token);

  /// Called in place of `read` while the pipeline takes nothing in: its queue is full, its sink is
  /// stuck, or it is paused. Keeps what was read from being delivered again, and makes no new
  /// request for more. A source that has lost its server connects again here; errors are left for
  /// `read` to meet. Returns how long it may wait until it is called again.
  virtual std::chrono::milliseconds tend(std::stop_token) { return std::chrono::seconds(1); }

  /// Records that are not settled: those that wait and those that were read. For a broker, what it
  /// still holds for this consumer, pending and unacknowledged. Nothing where the source cannot
  /// tell, or could not ask of late: an old figure is never given. Asked about once a second, also
  /// while the pipeline takes nothing in.
  virtual std::optional<std::int64_t> lag() = 0;

  /// True where the server may hold back records that `lag` counts, or another consumer may have
  /// them: a read that brings nothing is then no sign of a stuck pipeline.
  virtual bool lag_may_be_withheld() const { return false; }

  /// True where records are on their way that `lag` may not count yet: the source must not be
  /// closed for lack of work. Reader thread.
  virtual bool more_to_come() const { return false; }

  /// True where reading costs a record something that may not be spent in vain: a broker counts how
  /// often it handed a message out, and drops one that came too often. `read` is then called only
  /// while the sink is open.
  virtual bool reads_for_open_sink_only() const { return false; }

  /// The sequence in the relay's own database that moves when there are new records, as regclass
  /// takes it; empty where none is known, before `open` for one. Any thread.
  virtual std::string watched_sequence() const { return {}; }

  /// Any thread.
  virtual OpenWriter oldest_open_writer() const { return {}; }

  /// Where reading runs code of others and takes long: how long a step took of late, or takes
  /// already. 0: not long. Any thread.
  virtual std::chrono::milliseconds slow_read() const { return {}; }

  /// Writes what `acknowledge` has left due, within a moment, and lets go of what it holds.
  virtual void close() = 0;

  /// True where clients write to the source: it must stay alive after `close`, until it is
  /// destroyed, to reject them.
  virtual bool answers_when_closed() const { return false; }

  /// For `check`, in place of all of the above: whether it could read now. Nothing is made, taken
  /// or moved.
  virtual Inspection inspect(std::stop_token) { return {}; }

  /// What no other pipeline should read from in the same way. After `inspect`.
  virtual std::vector<Claim> claims() const { return {}; }
};

}  // namespace relay
