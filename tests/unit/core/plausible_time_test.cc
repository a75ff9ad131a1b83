#include "core/plausible_time.h"

#include <gtest/gtest.h>

#include <limits>

namespace relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(PlausibleTime, IsTheMomentThatAClockHasSaid) {
  EXPECT_EQ(plausible_time(milliseconds(1'700'000'000'123)),
            Timestamp(std::chrono::microseconds(1'700'000'000'123'000)));
  EXPECT_EQ(plausible_time(seconds(253'402'300'799)), Timestamp(seconds(253'402'300'799)));
}

TEST(PlausibleTime, IsNoneWhereNoClockHasSaidIt) {
  for (const auto given :
       {std::numeric_limits<std::int64_t>::min(), std::int64_t{-1},
        std::int64_t{253'402'300'800'000}, std::numeric_limits<std::int64_t>::max()}) {
    EXPECT_EQ(plausible_time(milliseconds(given)), Timestamp{}) << given;
  }
  EXPECT_EQ(plausible_time(seconds(253'402'300'800)), Timestamp{});
}

}  // namespace
}  // namespace relay
