#include "connector/in_flight_window.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

using std::chrono::milliseconds;
using Verdict = InFlightWindow::Verdict;

SteadyClock::time_point at(int ms) {
  return SteadyClock::time_point(milliseconds(ms));
}

/// Three messages or ten bytes, a silence of 100 ms, and a deadline at 1000 ms.
InFlightWindow window() {
  return InFlightWindow({.messages = 3, .silence = milliseconds(100), .bytes = 10},
                        Deadline(at(1000)));
}

TEST(InFlightWindow, HasRoomForSoManyMessages) {
  auto window = relay::window();
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(window.has_room());
    window.sent(1, at(0));
  }
  EXPECT_FALSE(window.has_room());
  window.answered(1, at(0));
  EXPECT_TRUE(window.has_room());
  EXPECT_EQ(window.messages(), 2u);
}

TEST(InFlightWindow, HasRoomForSoManyBytesAndForOneMessageOfAnySize) {
  auto window = relay::window();
  window.sent(5, at(0));
  EXPECT_TRUE(window.has_room());
  window.sent(5, at(0));
  EXPECT_FALSE(window.has_room());
  window.answered(5, at(0));
  window.answered(5, at(0));
  EXPECT_TRUE(window.has_room());
  window.sent(1000, at(0));
  EXPECT_FALSE(window.has_room());
}

TEST(InFlightWindow, TheBrokerIsSilentWhenItOwesAnAnswerForTooLong) {
  auto window = relay::window();
  EXPECT_EQ(window.verdict(at(500)), Verdict::wait) << "nothing is in flight";
  window.sent(1, at(500));
  window.sent(1, at(550));
  EXPECT_EQ(window.verdict(at(599)), Verdict::wait);
  EXPECT_EQ(window.until().at(), at(600));
  EXPECT_EQ(window.verdict(at(600)), Verdict::silent) << "since the first of them was sent";
}

TEST(InFlightWindow, EachAnswerBeginsTheWaitAnew) {
  auto window = relay::window();
  window.sent(1, at(0));
  window.sent(1, at(0));
  window.answered(1, at(90));
  EXPECT_EQ(window.verdict(at(189)), Verdict::wait);
  EXPECT_EQ(window.verdict(at(190)), Verdict::silent);
  window.answered(1, at(190));
  EXPECT_EQ(window.verdict(at(900)), Verdict::wait) << "no answer is owed";
  window.sent(1, at(900));
  EXPECT_EQ(window.verdict(at(950)), Verdict::wait);
}

TEST(InFlightWindow, TheDeadlineOfTheDeliveryEndsTheWait) {
  auto window = relay::window();
  EXPECT_EQ(window.until().at(), at(1000));
  EXPECT_EQ(window.verdict(at(999)), Verdict::wait);
  EXPECT_EQ(window.verdict(at(1000)), Verdict::late);
  window.sent(1, at(950));
  EXPECT_EQ(window.until().at(), at(1000));
  EXPECT_EQ(window.verdict(at(1000)), Verdict::late);
  EXPECT_EQ(window.verdict(at(1050)), Verdict::silent) << "which says more";
}

TEST(InFlightWindow, TakesTheCountOfALibrarysThreads) {
  auto window = relay::window();
  window.set({.messages = 3, .bytes = 3, .waiting_since = at(10)});
  EXPECT_FALSE(window.has_room());
  EXPECT_EQ(window.verdict(at(110)), Verdict::silent);
  window.set({.messages = 1, .bytes = 1});
  EXPECT_TRUE(window.has_room());
  EXPECT_EQ(window.verdict(at(110)), Verdict::wait);
}

}  // namespace
}  // namespace relay
