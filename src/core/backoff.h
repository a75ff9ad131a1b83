#pragma once

#include <chrono>
#include <cstdint>
#include <random>

namespace relay {

/// min, doubled so often, but at most max.
std::chrono::milliseconds doubled(std::chrono::milliseconds min, std::chrono::milliseconds max,
                                  int times);

/// Exponential back-off with full jitter: the n-th delay is uniform in [0, min(max, min * 2^n)].
/// Each instance has its own random sequence, so that pipelines do not retry in step.
class Backoff {
 public:
  Backoff(std::chrono::milliseconds min, std::chrono::milliseconds max, std::uint64_t seed);

  /// The next delay; at least `floor` (what a broker's Retry-After asked for).
  std::chrono::milliseconds next(std::chrono::milliseconds floor = {});
  void reset() { attempts_ = 0; }
  int attempts() const { return attempts_; }

 private:
  std::chrono::milliseconds min_;
  std::chrono::milliseconds max_;
  int attempts_ = 0;
  std::mt19937_64 random_;
};

}  // namespace relay
