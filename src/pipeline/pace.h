#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

namespace relay {

/// How many messages a sink is given at once: about as many as it settles in a second. A slow sink
/// then ends each delivery before its deadline, and soon after an operator pauses the pipeline; a
/// fast one seldom waits for the last message of a delivery. Pure; one thread.
class Pace {
 public:
  static constexpr std::size_t kLeast = 16;
  static constexpr std::size_t kFirst = 256;
  static constexpr std::size_t kMost = 16384;

  std::size_t allowed() const { return allowed_; }

  /// A delivery of `sent` messages settled `settled` of them within `took`.
  void observe(std::size_t sent, std::size_t settled, std::chrono::nanoseconds took) {
    if (took > kTarget) {
      const double rate =
          static_cast<double>(settled) / std::chrono::duration<double>(took).count();
      allowed_ = std::clamp(static_cast<std::size_t>(rate), kLeast, allowed_);
    } else if (settled == sent && sent >= allowed_ && took < kTarget / 2) {
      allowed_ = std::min(allowed_ * 4, kMost);
    }
  }

 private:
  static constexpr std::chrono::nanoseconds kTarget = std::chrono::seconds(1);
  std::size_t allowed_ = kFirst;
};

}  // namespace relay
