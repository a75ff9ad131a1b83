#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "core/deadline.h"

namespace relay {

/// Keeps a pipeline below its rate limit: messages pass in slices, each of which costs the time
/// that the limit gives it. The caller brings the clock and does the waiting. One thread.
class RateLimiter {
 public:
  /// `rate`: messages a second; 0: no limit.
  explicit RateLimiter(double rate) : rate_(rate) {}

  /// How many of `wanted` messages may pass together.
  std::size_t slice(std::size_t wanted) const {
    if (rate_ <= 0) return wanted;
    return std::min(wanted, static_cast<std::size_t>(std::max(1.0, rate_ * kSlice)));
  }

  /// How long the next slice has to wait; zero or less: it may pass.
  SteadyClock::duration wait(SteadyClock::time_point now) const {
    return rate_ <= 0 ? SteadyClock::duration::zero() : next_ - now;
  }

  /// `count` messages pass now.
  void pass(std::size_t count, SteadyClock::time_point now) {
    if (rate_ <= 0) return;
    const auto cost = std::chrono::duration<double>(static_cast<double>(count) / rate_);
    next_ = std::max(next_, now) + std::chrono::duration_cast<SteadyClock::duration>(cost);
  }

 private:
  /// Seconds of the limit that pass at once.
  static constexpr double kSlice = 0.05;

  const double rate_;
  SteadyClock::time_point next_{};  // nothing passes before it
};

}  // namespace relay
