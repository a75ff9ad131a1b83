#pragma once

#include <cstddef>
#include <span>

#include "core/error.h"
#include "core/message.h"
#include "pipeline/spec.h"

namespace relay {

/// What the outcomes of one delivery mean for the next step. A value: no clock, no thread.
struct DeliverySummary {
  std::size_t settled = 0;  ///< delivered now, or there already
  std::size_t failed = 0;
  SharedError unknown;   ///< the first error of a message whose outcome is unknown
  SharedError refused;   ///< the first error of one that waits while others go on
  SharedError halts;     ///< the first error of one that asks for the operator
  SharedError rejected;  ///< the first error of a rejected message

  static DeliverySummary of(std::span<const Outcome> outcomes) {
    DeliverySummary summary;
    for (const Outcome& outcome : outcomes) {
      const bool unknown = outcome.kind == Outcome::Kind::unknown;
      if (!unknown && outcome.kind != Outcome::Kind::rejected) {
        ++summary.settled;
        continue;
      }
      if (outcome.others_may_go && !outcome.was_refused()) continue;  // it was not sent
      ++summary.failed;
      SharedError& first = summary.error_for(outcome);
      if (!first) first = outcome.error;
    }
    return summary;
  }

  SharedError& error_for(const Outcome& outcome) {
    if (outcome.kind == Outcome::Kind::rejected) return rejected;
    if (outcome.halts) return halts;
    return outcome.others_may_go ? refused : unknown;
  }

  /// The sink takes messages. A message that it refused shows that, too: the broker has answered.
  bool sink_takes() const { return (!unknown && !halts) || settled > 0; }

  enum class Next {
    go_on,  ///< all is decided: acknowledge, then send what is left
    retry,  ///< wait, then send again what is unknown
    halt,   ///< wait for the operator, then send again what is not settled
  };
  Next next(OnReject on_reject) const {
    if (halts) return Next::halt;
    if (unknown) return Next::retry;
    return rejected && on_reject == OnReject::stop ? Next::halt : Next::go_on;
  }
  /// Where `next` is to halt: why.
  const Error& halt_error() const { return halts ? *halts : *rejected; }
};

/// Whether the next try takes a new connection: the old one may be the cause, unless the broker
/// asked for a pause.
inline bool needs_new_connection(const Error& unknown) {
  return unknown.error_class != ErrorClass::throttled;
}

}  // namespace relay
