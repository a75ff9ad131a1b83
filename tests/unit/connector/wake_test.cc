#include "connector/wake.h"

#include <gtest/gtest.h>

#include <thread>

namespace relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Wake, DoesNotWaitForWhatWasAnnouncedBefore) {
  Wake wake;
  wake.announce(5);
  EXPECT_EQ(wake.wait_beyond(4, Deadline::never(), {}), 5);
}

TEST(Wake, WaitsUntilTheSequenceIsBeyondWhatIsKnown) {
  Wake wake;
  wake.announce(5);
  EXPECT_EQ(wake.wait_beyond(5, Deadline::after(milliseconds(10)), {}), 5);
  std::jthread sweep([&] { wake.announce(6); });
  EXPECT_EQ(wake.wait_beyond(5, Deadline::after(seconds(10)), {}), 6);
}

TEST(Wake, APokeBetweenTwoWaitsIsNotMissed) {
  Wake wake;
  std::uint64_t pokes = wake.pokes();
  wake.poke();
  const auto before = SteadyClock::now();
  wake.wait_beyond(0, pokes, Deadline::after(seconds(10)), {});
  EXPECT_LT(SteadyClock::now() - before, seconds(5));
  wake.wait_beyond(0, pokes, Deadline::after(milliseconds(10)), {});
}

TEST(Wake, TellsOnceThatAReaderWaitedAndAlwaysThatAReaderWaits) {
  Wake wake;
  EXPECT_FALSE(wake.was_awaited());
  wake.wait_beyond(0, Deadline::after(milliseconds(1)), {});
  EXPECT_TRUE(wake.was_awaited());
  EXPECT_FALSE(wake.was_awaited());
  std::stop_source stop;
  std::jthread reader([&] { wake.wait_beyond(0, Deadline::never(), stop.get_token()); });
  while (!wake.was_awaited()) std::this_thread::yield();
  EXPECT_TRUE(wake.was_awaited());
  stop.request_stop();
}

TEST(Wake, AStopEndsTheWait) {
  Wake wake;
  std::stop_source stop;
  std::jthread stopper([&] { stop.request_stop(); });
  const auto before = SteadyClock::now();
  wake.wait_beyond(0, Deadline::after(seconds(10)), stop.get_token());
  EXPECT_LT(SteadyClock::now() - before, seconds(5));
}

TEST(Wake, TakesASequenceThatWasSetBackAsItIs) {
  Wake wake;
  wake.announce(9);
  wake.announce(2);
  EXPECT_EQ(wake.last_value(), 2);
}

}  // namespace
}  // namespace relay
