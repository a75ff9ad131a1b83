#include "ownership/lease_clock.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace relay::ownership {
namespace {

using std::chrono::milliseconds;

const BootClock::time_point kAsked{std::chrono::hours(1)};

TEST(LeaseClock, IsNotValidBeforeTheFirstRenewal) {
  EXPECT_FALSE(LeaseClock(milliseconds(5000)).lease().holds(kAsked));
}

TEST(LeaseClock, IsNotValidOnceTheLeasesAreLost) {
  LeaseClock lease(milliseconds(5000));
  lease.renewed(kAsked);
  EXPECT_TRUE(lease.lease().holds(kAsked));
  lease.lost();
  EXPECT_FALSE(lease.lease().holds(kAsked));
}

RC_GTEST_PROP(LeaseClock, EndsBeforeAnotherInstanceMayTakeOver, ()) {
  const milliseconds timeout(*rc::gen::inRange(100, 3'600'000));
  LeaseClock lease(timeout);
  lease.renewed(kAsked);
  // The database wrote the renewal no earlier than it was asked for.
  RC_ASSERT(!lease.lease().holds(kAsked + timeout - timeout / 20));
  // The server ends a session that is silent for so long, and with it the leases.
  RC_ASSERT(!lease.lease().holds(kAsked + milliseconds(5000)));
  // The same holds for its connections, which outlive it for as long as answers may take.
  RC_ASSERT(lease.lease().is_cut(kAsked + timeout - timeout / 20));
  RC_ASSERT(lease.lease().is_cut(kAsked + milliseconds(4750)));
}

RC_GTEST_PROP(LeaseClock, OutlivesSevenRenewalsThatFail, ()) {
  LeaseClock lease(milliseconds(*rc::gen::inRange(100, 3'600'000)));
  lease.renewed(kAsked);
  RC_ASSERT(lease.lease().holds(kAsked + 8 * lease.interval()));
}

}  // namespace
}  // namespace relay::ownership
