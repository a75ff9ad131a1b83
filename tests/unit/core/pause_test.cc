#include "core/pause.h"

#include <gtest/gtest.h>

#include <thread>

namespace relay {
namespace {

TEST(Pause, LastsUntilTheDeadline) {
  const Deadline until = Deadline::after(std::chrono::milliseconds(5));
  EXPECT_TRUE(pause(until, {}));
  EXPECT_TRUE(until.passed());
}

TEST(Pause, EndsWithAStop) {
  std::stop_source stop;
  const std::jthread other([&stop] { stop.request_stop(); });
  EXPECT_FALSE(pause(Deadline::never(), stop.get_token()));
  EXPECT_FALSE(pause(Deadline::never(), stop.get_token()));
}

}  // namespace
}  // namespace relay
