#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/message.h"

namespace relay {

/// The account of one batch: turns outcomes into what to send again, what goes to the dead letters,
/// and how far the position may move. Pure: no I/O, clock or thread. Refers to the messages, which
/// must outlive it.
///
/// A message is settled when it is delivered, a duplicate, or rejected. The position follows the
/// longest run of records, from the first, whose messages are all settled; a rejected message in
/// that run must be in the dead letters when the position passes it.
class Settlement {
 public:
  /// `records` is the number of records that the messages were made from; their `record` rises.
  /// With `hold_rejected` (on_reject = stop) a rejected message stays pending: nothing passes it.
  Settlement(std::span<const Message> messages, std::size_t records, bool hold_rejected = false);

  /// The batch has grown at its end; `messages` and `records` are now those of the whole.
  void extend(std::span<const Message> messages, std::size_t records);

  /// Messages that are not settled, as indexes in rising order: what to send (again).
  const std::vector<std::size_t>& pending() const { return pending_; }
  bool done() const { return pending_.empty(); }

  /// The outcomes of these messages, which are pending, in rising order. `sent` may be a part of
  /// `pending()`.
  void record(std::span<const std::size_t> sent, std::span<const Outcome> outcomes);
  /// The outcomes of the first `outcomes.size()` pending messages, in their order.
  void record(std::span<const Outcome> outcomes) {
    record(std::span(pending_).first(outcomes.size()), outcomes);
  }

  struct Progress {
    std::size_t records = 0;            ///< leading records that are settled, in all
    std::vector<std::size_t> rejected;  ///< messages that the run now passes for the first time
  };
  /// How far the position may move now. The same `records` as at the last call: no further.
  Progress progress();
  /// The error of a message that was rejected.
  const SharedError& error(std::size_t index) const { return outcomes_[index].error; }

 private:
  std::span<const Message> messages_;
  std::size_t records_ = 0;
  bool hold_rejected_;
  std::vector<Outcome> outcomes_;
  std::vector<std::size_t> pending_;
  std::size_t passed_ = 0;  ///< messages of records that `progress` has reported
};

}  // namespace relay
