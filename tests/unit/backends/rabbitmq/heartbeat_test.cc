#include "backends/rabbitmq/heartbeat.h"

#include <gtest/gtest.h>

namespace relay::rabbitmq {
namespace {

using std::chrono::seconds;

constexpr int kSome = 100;
constexpr int kMuch = 100'000;

class SilenceTest : public ::testing::Test {
 protected:
  bool at(int second, int last_arrival, int unread = 0) {
    return silence_.lasts(start_ + seconds(second), start_ + seconds(last_arrival), unread);
  }

  SteadyClock::time_point start_ = SteadyClock::now();
  Silence silence_{seconds(10), start_};
};

TEST_F(SilenceTest, LastsAfterMoreThanTwoIntervals) {
  EXPECT_FALSE(at(20, 0));
  EXPECT_TRUE(at(21, 0));
}

TEST_F(SilenceTest, EndsWithEachArrival) {
  EXPECT_FALSE(at(19, 18));
  EXPECT_FALSE(at(38, 18));
  EXPECT_TRUE(at(39, 18));
}

TEST_F(SilenceTest, DoesNotCountBeforeTheConnectionWasOpen) {
  EXPECT_FALSE(at(20, -100));
}

TEST_F(SilenceTest, IsNotTheBrokersFaultWhileMuchIsUnread) {
  EXPECT_FALSE(at(1000, 0, kMuch));
  // It has two intervals from then on.
  EXPECT_FALSE(at(1020, 0, 0));
  EXPECT_TRUE(at(1021, 0, 0));
}

TEST_F(SilenceTest, IsSilenceWithSomeHeartbeatsUnread) {
  EXPECT_TRUE(at(21, 0, kSome));
}

}  // namespace
}  // namespace relay::rabbitmq
