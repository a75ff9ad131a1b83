#pragma once

#include <chrono>

#include "core/record.h"

namespace relay {

/// A time since 1970 as a message carries it, which anybody may have written: no time at all where
/// it is before 1970 or beyond the year 9999.
template <class Rep, class Period>
Timestamp plausible_time(std::chrono::duration<Rep, Period> since_1970) {
  using Given = std::chrono::duration<Rep, Period>;
  constexpr std::chrono::sys_days kEnd = std::chrono::year(10000) / 1 / 1;
  if (since_1970 < Given::zero() ||
      since_1970 >= std::chrono::duration_cast<Given>(kEnd.time_since_epoch())) {
    return {};
  }
  return Timestamp(std::chrono::duration_cast<std::chrono::microseconds>(since_1970));
}

}  // namespace relay
