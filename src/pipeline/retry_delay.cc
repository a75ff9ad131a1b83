#include "pipeline/retry_delay.h"

#include <algorithm>

namespace relay {

using std::chrono::milliseconds;

namespace {

/// How soon a misconfigured pipeline looks again whether the cause, outside, has gone.
constexpr milliseconds kMisconfiguredMin{1000};
constexpr milliseconds kMisconfiguredMax{30000};

}  // namespace

milliseconds retry_delay(const Error& error, Backoff& backoff) {
  const milliseconds delay = backoff.next(error.retry_after);
  if (error.error_class == ErrorClass::misconfigured) {
    return std::min(kMisconfiguredMax, kMisconfiguredMin * (1 << std::min(backoff.attempts(), 5)));
  }
  return error.code == kUnreachable ? std::min(delay, kReconnectMax) : delay;
}

}  // namespace relay
