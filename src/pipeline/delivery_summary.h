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
  SharedError rejected;  ///< the first error of a rejected message

  static DeliverySummary of(std::span<const Outcome> outcomes) {
    DeliverySummary summary;
    for (const Outcome& outcome : outcomes) {
      const bool unknown = outcome.kind == Outcome::Kind::unknown;
      if (!unknown && outcome.kind != Outcome::Kind::rejected) {
        ++summary.settled;
        continue;
      }
      ++summary.failed;
      SharedError& first = unknown ? summary.unknown : summary.rejected;
      if (!first) first = outcome.error;
    }
    return summary;
  }

  /// The sink takes messages. A rejection shows that, too: the broker has answered.
  bool sink_takes() const { return !unknown || settled > 0; }

  enum class Next {
    go_on,  ///< all is decided: acknowledge, then send what is left
    retry,  ///< wait, then send again what is unknown
    halt,   ///< wait for the operator, then send the rejected message again
  };
  Next next(OnReject on_reject) const {
    if (unknown) return Next::retry;
    return rejected && on_reject == OnReject::stop ? Next::halt : Next::go_on;
  }
};

/// Whether the next try takes a new connection: the old one may be the cause, unless the broker
/// asked for a pause.
inline bool needs_new_connection(const Error& unknown) {
  return unknown.error_class != ErrorClass::throttled;
}

}  // namespace relay
