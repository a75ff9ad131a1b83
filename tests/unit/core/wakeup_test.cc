#include "core/wakeup.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

#include "core/stop_event.h"

namespace relay {
namespace {

bool readable(int fd, int milliseconds) {
  pollfd wait{fd, POLLIN, 0};
  return ::poll(&wait, 1, milliseconds) == 1;
}

TEST(Wakeup, IsReadableFromANotificationUntilItIsDrained) {
  const Wakeup wakeup;
  EXPECT_FALSE(readable(wakeup.fd(), 0));
  wakeup.notify();
  wakeup.notify();
  EXPECT_TRUE(readable(wakeup.fd(), 0));
  wakeup.drain();
  EXPECT_FALSE(readable(wakeup.fd(), 0));
}

TEST(Wakeup, TakesMoreNotificationsThanThePipeHolds) {
  const Wakeup wakeup;
  for (int i = 0; i < 200'000; ++i) wakeup.notify();
  EXPECT_TRUE(readable(wakeup.fd(), 0));
  wakeup.drain();
  EXPECT_FALSE(readable(wakeup.fd(), 0));
}

TEST(Wakeup, WakesAThreadThatWaits) {
  const Wakeup wakeup;
  const std::jthread other([&wakeup] { wakeup.notify(); });
  EXPECT_TRUE(readable(wakeup.fd(), 10'000));
}

TEST(StopEvent, StaysReadableAfterAStop) {
  std::stop_source stop;
  const StopEvent stopped(stop.get_token());
  EXPECT_FALSE(readable(stopped.fd(), 0));
  stop.request_stop();
  EXPECT_TRUE(readable(stopped.fd(), 0));
  EXPECT_TRUE(readable(stopped.fd(), 0));
}

TEST(StopEvent, OfAStopThatWasAskedForBeforeIsReadable) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_TRUE(readable(StopEvent(stop.get_token()).fd(), 0));
}

}  // namespace
}  // namespace relay
