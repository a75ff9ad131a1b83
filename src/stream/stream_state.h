#pragma once

#include <cstdint>
#include <optional>
#include <string>

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
  /// How often the receiver has connected: each time it may have been to another server.
  std::int64_t connections RELAY_GUARDED_BY(mutex) = 0;
  /// Why nothing is received at present.
  std::optional<Error> trouble RELAY_GUARDED_BY(mutex);
  std::int64_t recoveries RELAY_GUARDED_BY(mutex) = 0;     ///< slots that were made anew
  std::string note RELAY_GUARDED_BY(mutex);                ///< what happened to the slot last
  std::int64_t synchronising RELAY_GUARDED_BY(mutex) = 0;  ///< standbys that synchronise slots
  /// What is wrong with the failover of the slot, while events come.
  std::optional<Error> failover_problem RELAY_GUARDED_BY(mutex);
};

}  // namespace relay::stream
