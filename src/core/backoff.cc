#include "core/backoff.h"

#include <algorithm>

namespace relay {

Backoff::Backoff(std::chrono::milliseconds min, std::chrono::milliseconds max, std::uint64_t seed)
    : min_(std::max(min, std::chrono::milliseconds(1))), max_(std::max(max, min_)), random_(seed) {}

std::chrono::milliseconds Backoff::next(std::chrono::milliseconds floor) {
  constexpr int kMaxDoublings = 30;
  const int doublings = std::min(attempts_, kMaxDoublings);
  ++attempts_;
  const std::int64_t ceiling =
      std::min<std::int64_t>(max_.count(), min_.count() * (std::int64_t{1} << doublings));
  std::uniform_int_distribution<std::int64_t> pick(0, ceiling);
  return std::max(floor, std::chrono::milliseconds(pick(random_)));
}

}  // namespace relay
