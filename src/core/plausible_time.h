#pragma once

#include <chrono>

#include "core/record.h"

namespace relay {

/// The time that a message carries. Its sender may have written any number: a time before 1970 or
/// after the year 9999 counts as none.
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
