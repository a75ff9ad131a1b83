#include "core/backoff.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace relay {
namespace {

using std::chrono::milliseconds;

RC_GTEST_PROP(Backoff, NeverExceedsTheDoubledMinimumNorTheMaximum, (std::uint64_t seed)) {
  Backoff backoff(milliseconds(100), milliseconds(30000), seed);
  for (int i = 0; i < 50; ++i) {
    const auto delay = backoff.next();
    RC_ASSERT(delay >= milliseconds(0));
    RC_ASSERT(delay <= milliseconds(30000));
    if (i < 8) RC_ASSERT(delay <= milliseconds(100 << i));
  }
}

RC_GTEST_PROP(Backoff, WaitsAtLeastAsLongAsTheBrokerAsked, (std::uint64_t seed)) {
  Backoff backoff(milliseconds(1), milliseconds(10), seed);
  RC_ASSERT(backoff.next(milliseconds(5000)) >= milliseconds(5000));
}

TEST(Backoff, TwoPipelinesDoNotRetryInStep) {
  Backoff one(milliseconds(1000), milliseconds(30000), 1);
  Backoff two(milliseconds(1000), milliseconds(30000), 2);
  int equal = 0;
  for (int i = 0; i < 20; ++i) equal += one.next() == two.next() ? 1 : 0;
  EXPECT_LT(equal, 5);
}

TEST(Backoff, BeginsAnewAfterReset) {
  Backoff backoff(milliseconds(10), milliseconds(100000), 7);
  for (int i = 0; i < 12; ++i) backoff.next();
  backoff.reset();
  EXPECT_LE(backoff.next(), milliseconds(10));
}

}  // namespace
}  // namespace relay
