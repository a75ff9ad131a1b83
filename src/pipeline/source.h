#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stop_token>
#include <string>

#include "core/deadline.h"
#include "core/error.h"
#include "core/record.h"
#include "pipeline/dead_letter.h"

namespace relay {

/// How much one read may bring. A batch never exceeds `bytes` by more than its largest record.
struct ReadLimits {
  std::size_t records = 1000;
  std::size_t bytes = 8u << 20;
};

/// Where records come from. `open`, `read` and `read_range` are called by the reader thread;
/// `acknowledge` by the sender thread, while a read may be under way; `close` when both are done.
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

  /// Records still to come, where the source can tell.
  virtual std::optional<std::int64_t> lag() = 0;

  /// Something is on its way that `lag` may not count yet: the source is not to be closed for lack
  /// of work. Reader thread.
  virtual bool more_to_come() const { return false; }

  /// True where reading costs a record something that may not be spent in vain: a broker counts how
  /// often it handed a message out, and drops one that came too often. `read` is then called only
  /// while the sink is open.
  virtual bool reads_for_open_sink_only() const { return false; }

  /// Writes what `acknowledge` has left due, within a moment, and lets go of what it holds.
  virtual void close() = 0;

  /// True where those who write to the source are still told, until it is destroyed, that nothing
  /// is taken in.
  virtual bool answers_when_closed() const { return false; }
};

}  // namespace relay
