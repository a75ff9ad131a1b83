#include "pipeline/rate_limiter.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr SteadyClock::time_point kStart{std::chrono::hours(1)};

/// Sends as much as the limiter lets pass until `end`; how many messages that was.
std::size_t sent_until(RateLimiter& limiter, SteadyClock::time_point end, std::size_t wanted) {
  std::size_t sent = 0;
  for (auto now = kStart; now < end; now += std::max(limiter.wait(now), SteadyClock::duration(1))) {
    if (limiter.wait(now) > SteadyClock::duration::zero()) continue;
    limiter.pass(limiter.slice(wanted), now);
    sent += limiter.slice(wanted);
  }
  return sent;
}

TEST(RateLimiter, LetsEverythingPassWithoutALimit) {
  RateLimiter limiter(0);
  EXPECT_EQ(limiter.slice(16384), 16384U);
  limiter.pass(16384, kStart);
  EXPECT_EQ(limiter.wait(kStart), SteadyClock::duration::zero());
}

TEST(RateLimiter, LetsAsManyPassASecondAsTheLimitSays) {
  RateLimiter limiter(200);
  EXPECT_EQ(limiter.slice(1000), 10U);
  EXPECT_EQ(sent_until(limiter, kStart + seconds(10), 1000), 2000U);
}

TEST(RateLimiter, LetsSingleMessagesPassBelowOneASlice) {
  RateLimiter limiter(0.5);
  EXPECT_EQ(limiter.slice(1000), 1U);
  EXPECT_EQ(sent_until(limiter, kStart + seconds(10), 1000), 5U);
}

TEST(RateLimiter, ChargesOnlyWhatPasses) {
  RateLimiter limiter(100);
  EXPECT_EQ(limiter.slice(2), 2U);
  limiter.pass(2, kStart);
  EXPECT_EQ(limiter.wait(kStart), milliseconds(20));
}

TEST(RateLimiter, SavesNothingUpWhileNothingIsSent) {
  RateLimiter limiter(100);
  limiter.pass(5, kStart);
  const auto later = kStart + seconds(60);
  EXPECT_LE(limiter.wait(later), SteadyClock::duration::zero());
  limiter.pass(5, later);
  EXPECT_EQ(limiter.wait(later), milliseconds(50));
}

}  // namespace
}  // namespace relay
