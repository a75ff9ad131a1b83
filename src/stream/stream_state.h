#pragma once

#include <cstdint>
#include <optional>

#include "core/error.h"
#include "core/mutex.h"
#include "stream/flow.h"

namespace relay::stream {

/// What the threads of a stream share.
struct StreamState {
  explicit StreamState(const SpoolLimits& limits) : flow(limits) {}

  Mutex mutex;
  Condition news;  ///< events, an error, or the way to read them, for the reader
  Condition room;  ///< events were taken, for the receiver
  Flow flow RELAY_GUARDED_BY(mutex);
  bool loaded RELAY_GUARDED_BY(mutex) = false;  ///< what was stored is known
  /// Why nothing is received at present.
  std::optional<Error> trouble RELAY_GUARDED_BY(mutex);
  std::int64_t recoveries RELAY_GUARDED_BY(mutex) = 0;  ///< slots that were made anew
};

}  // namespace relay::stream
