#include "core/backoff.h"

#include <algorithm>

namespace relay {

std::chrono::milliseconds doubled(std::chrono::milliseconds min, std::chrono::milliseconds max,
                                  int times) {
  constexpr int kMost = 30;
  return std::min(max, min * (std::int64_t{1} << std::min(times, kMost)));
}

Backoff::Backoff(std::chrono::milliseconds min, std::chrono::milliseconds max, std::uint64_t seed)
    : min_(std::max(min, std::chrono::milliseconds(1))), max_(std::max(max, min_)), random_(seed) {}

std::chrono::milliseconds Backoff::next(std::chrono::milliseconds floor) {
  std::uniform_int_distribution<std::int64_t> pick(0, doubled(min_, max_, attempts_++).count());
  return std::max(floor, std::chrono::milliseconds(pick(random_)));
}

}  // namespace relay
