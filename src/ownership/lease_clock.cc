#include "ownership/lease_clock.h"

#include <algorithm>

namespace relay::ownership {

namespace {

/// How long the server keeps a lease session that is silent.
constexpr std::chrono::milliseconds kSilenceEndsSession{5000};

}  // namespace

LeaseClock::LeaseClock(std::chrono::milliseconds lease_timeout) {
  const auto shortest = std::min(lease_timeout, kSilenceEndsSession);
  share_ = shortest * 90 / 100;
  cut_share_ = shortest * 95 / 100;
  interval_ = shortest / 10;
}

}  // namespace relay::ownership
