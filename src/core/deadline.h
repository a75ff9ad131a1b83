#pragma once

#include <algorithm>
#include <chrono>

namespace relay {

using SteadyClock = std::chrono::steady_clock;

/// A moment after which waiting is no use. Passed down instead of time-outs, so that the parts of
/// an operation share one budget.
class Deadline {
 public:
  static Deadline after(std::chrono::nanoseconds budget) {
    return Deadline(SteadyClock::now() + budget);
  }
  static Deadline never() { return Deadline(SteadyClock::time_point::max()); }
  explicit Deadline(SteadyClock::time_point at) : at_(at) {}

  bool passed() const { return SteadyClock::now() >= at_; }
  SteadyClock::time_point at() const { return at_; }
  /// Time left, never below zero, never beyond an hour (so that it fits every API).
  std::chrono::milliseconds left() const {
    using std::chrono::milliseconds;
    const auto now = SteadyClock::now();
    if (at_ <= now) return milliseconds(0);
    const auto left = std::min<std::chrono::nanoseconds>(at_ - now, std::chrono::hours(1));
    return std::chrono::ceil<milliseconds>(left);
  }
  Deadline earlier(Deadline other) const { return Deadline(std::min(at_, other.at_)); }

 private:
  SteadyClock::time_point at_;
};

}  // namespace relay
