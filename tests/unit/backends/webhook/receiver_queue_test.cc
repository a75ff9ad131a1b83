#include "backends/webhook/receiver_queue.h"

#include <gtest/gtest.h>

#include <thread>

namespace relay::webhook {
namespace {

using std::chrono::milliseconds;
using Room = RequestQueue::Room;

constexpr RequestQueue::Bounds kBounds{3, 100, milliseconds(1000)};

ReceivedRequest body(std::size_t size) {
  ReceivedRequest request;
  request.body.assign(size, 'x');
  return request;
}

std::vector<std::int64_t> take(RequestQueue& queue, ReadLimits limits = {}) {
  std::vector<std::int64_t> numbers;
  for (const auto& taken : queue.take(limits, Deadline::after(milliseconds(0)), {})) {
    numbers.push_back(taken.number);
  }
  return numbers;
}

using Numbers = std::vector<std::int64_t>;

TEST(RequestQueue, EverythingThatWaitsIsTakenAtOnceInOrderUpToTheLimits) {
  RequestQueue queue({100, 1000, milliseconds(1000)});
  for (int i = 0; i < 6; ++i) queue.add(body(10), 0);
  EXPECT_EQ(take(queue, {2, 1000}), (Numbers{1, 2}));
  EXPECT_EQ(take(queue, {100, 15}), (Numbers{3, 4}));
  EXPECT_EQ(take(queue), (Numbers{5, 6}));
  EXPECT_EQ(take(queue), Numbers{});
}

TEST(RequestQueue, WhatIsNotSettledFillsIt) {
  RequestQueue queue(kBounds);
  for (int i = 0; i < 3; ++i) queue.add(body(1), 0);
  EXPECT_EQ(queue.room(SteadyClock::now()), Room::full);
  take(queue);
  EXPECT_EQ(queue.room(SteadyClock::now()), Room::full);
  queue.settle(1, SteadyClock::now());
  EXPECT_EQ(queue.room(SteadyClock::now()), Room::free);
}

TEST(RequestQueue, BytesAreHeldUntilTheyAreSettled) {
  RequestQueue queue(kBounds);
  EXPECT_FALSE(queue.reserve(101));
  EXPECT_TRUE(queue.reserve(60));
  EXPECT_FALSE(queue.reserve(41));
  queue.add(body(60), 60);
  take(queue);
  EXPECT_FALSE(queue.reserve(41));
  queue.settle(1, SteadyClock::now());
  EXPECT_TRUE(queue.reserve(100));
  EXPECT_EQ(queue.room(SteadyClock::now()), Room::full);
  queue.give_back(100);
  EXPECT_EQ(queue.room(SteadyClock::now()), Room::free);
}

TEST(RequestQueue, ARequestThatWasNotTakenIsForgottenWithItsClient) {
  RequestQueue queue(kBounds);
  ASSERT_TRUE(queue.reserve(50));
  queue.add(body(50), 50);
  queue.add(body(1), 0);
  EXPECT_TRUE(queue.abandon(1));
  EXPECT_EQ(queue.room(SteadyClock::now()), Room::stalled);
  EXPECT_EQ(take(queue), Numbers{2});
  EXPECT_EQ(queue.room(SteadyClock::now()), Room::free);
  EXPECT_TRUE(queue.reserve(100));
  EXPECT_FALSE(queue.abandon(2)) << "what was taken may be committed";
}

TEST(RequestQueue, WithoutProgressThereIsNoRoom) {
  RequestQueue queue(kBounds);
  queue.add(body(1), 0);
  queue.add(body(1), 0);
  take(queue);
  const auto now = SteadyClock::now();
  EXPECT_EQ(queue.room(now), Room::free);
  EXPECT_EQ(queue.room(now + milliseconds(1100)), Room::stalled);
  queue.settle(1, now + milliseconds(1100));
  EXPECT_EQ(queue.room(now + milliseconds(1200)), Room::free);
  EXPECT_EQ(queue.room(now + milliseconds(2200)), Room::stalled);
  queue.settle(2, now + milliseconds(2200));
  EXPECT_EQ(queue.room(now + milliseconds(9000)), Room::free);
}

TEST(RequestQueue, ClosedItTakesNothingAndForgetsWhatItHeld) {
  RequestQueue queue(kBounds);
  ASSERT_TRUE(queue.reserve(100));
  queue.add(body(100), 100);
  take(queue);
  queue.add(body(1), 0);
  queue.close();
  EXPECT_EQ(queue.room(SteadyClock::now()), Room::closed);
  ReceivedRequest late = body(7);
  EXPECT_EQ(queue.add(std::move(late), 0), std::nullopt);
  EXPECT_EQ(late.body.size(), 7u);
  EXPECT_EQ(take(queue), Numbers{});
  EXPECT_TRUE(queue.reserve(100));
}

TEST(RequestQueue, OpenedAgainItsNumbersGoOn) {
  RequestQueue queue(kBounds);
  queue.add(body(1), 0);
  queue.close();
  queue.open();
  EXPECT_EQ(queue.room(SteadyClock::now()), Room::free);
  EXPECT_EQ(queue.add(body(1), 0), 2);
  EXPECT_EQ(take(queue), Numbers{2});
}

TEST(RequestQueue, WaitingEndsWithARequestOrAStop) {
  RequestQueue queue(kBounds);
  std::jthread sender([&] { queue.add(body(1), 0); });
  EXPECT_EQ(queue.take({}, Deadline::after(std::chrono::seconds(20)), {}).size(), 1u);
  std::stop_source stop;
  std::jthread stopper([&] { stop.request_stop(); });
  EXPECT_TRUE(queue.take({}, Deadline::after(std::chrono::seconds(20)), stop.get_token()).empty());
}

}  // namespace
}  // namespace relay::webhook
