#include "pipeline/pace.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Pace, GrowsWhileDeliveriesAreFast) {
  Pace pace;
  std::size_t before = 0;
  while (pace.allowed() < Pace::kMost) {
    ASSERT_GT(pace.allowed(), before);
    before = pace.allowed();
    pace.observe(before, before, milliseconds(10));
  }
  pace.observe(Pace::kMost, Pace::kMost, milliseconds(10));
  EXPECT_EQ(pace.allowed(), Pace::kMost);
}

TEST(Pace, GivesASlowSinkAboutASecondOfWork) {
  Pace pace;
  pace.observe(256, 250, seconds(5));
  EXPECT_EQ(pace.allowed(), 50U);
  pace.observe(50, 0, seconds(30));
  EXPECT_EQ(pace.allowed(), Pace::kLeast);
  pace.observe(Pace::kLeast, Pace::kLeast, milliseconds(100));
  EXPECT_EQ(pace.allowed(), 4 * Pace::kLeast);
}

TEST(Pace, StaysAfterADeliveryThatWasSmallerThanAllowed) {
  Pace pace;
  pace.observe(3, 3, milliseconds(1));
  EXPECT_EQ(pace.allowed(), Pace::kFirst);
}

TEST(Pace, DoesNotGrowOnWhatFailed) {
  Pace pace;
  pace.observe(256, 10, milliseconds(1));
  EXPECT_EQ(pace.allowed(), Pace::kFirst);
}

}  // namespace
}  // namespace relay
