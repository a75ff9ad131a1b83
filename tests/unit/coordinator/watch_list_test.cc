#include "coordinator/watch_list.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <chrono>

namespace relay::coordinator {
namespace {

/// A pipeline as the list sees it: once woken it reads what it was told of, and falls asleep after
/// that.
class Sleeper final : public Watcher {
 public:
  void moved(std::int64_t last_value) override { told = last_value; }
  bool asleep() const override { return sleeps; }
  bool waits() override { return sleeps; }
  void wake() override {
    sleeps = has_read = false;
    ++wakes;
  }
  bool coming_up() const override { return comes_up; }
  void read() {
    read_up_to = told;
    has_read = true;
  }

  std::int64_t told = 0;
  std::int64_t read_up_to = 0;
  bool sleeps = true;
  bool has_read = true;
  bool comes_up = false;
  int wakes = 0;
};

class WatchListTest : public testing::Test {
 protected:
  WatchListTest() {
    list_.add("s", sleeper_);
    list_.resolve("s", 7);
  }
  void see(std::int64_t value) {
    list_.saw(7, value);
    list_.wake_sleepers();
  }
  WatchList list_;
  std::shared_ptr<Sleeper> sleeper_ = std::make_shared<Sleeper>();
};

TEST_F(WatchListTest, ASleeperIsToldAndWokenOnceForAValue) {
  see(3);
  EXPECT_EQ(sleeper_->told, 3);
  EXPECT_EQ(sleeper_->wakes, 1);
  sleeper_->sleeps = true;
  list_.wake_sleepers();
  EXPECT_EQ(sleeper_->wakes, 1);
}

TEST_F(WatchListTest, AThousandWhoSleepOnOneSequenceKeepNoOtherWaiting) {
  std::vector<std::shared_ptr<Sleeper>> crowd(1000);
  for (auto& one : crowd) {
    one = std::make_shared<Sleeper>();
    one->comes_up = true;
    list_.add("crowded", one);
  }
  list_.resolve("crowded", 6);
  list_.saw(6, 1);
  const auto woken = [&] {
    return std::ranges::count_if(crowd, [](const auto& one) { return one->wakes > 0; });
  };
  list_.wake_sleepers();
  EXPECT_EQ(woken(), WatchList::kComingUp);
  crowd[0]->comes_up = crowd[1]->comes_up = false;
  see(3);
  EXPECT_EQ(sleeper_->wakes, 1);
  EXPECT_EQ(woken(), WatchList::kComingUp + 1);
  for (int round = 0; round < 1000 && woken() < 1000; ++round) {
    for (auto& one : crowd) one->comes_up = one->wakes == 0;
    list_.wake_sleepers();
  }
  EXPECT_EQ(woken(), 1000);
  EXPECT_TRUE(std::ranges::all_of(crowd, [](const auto& one) { return one->wakes == 1; }));
}

TEST_F(WatchListTest, OneWhoIsAwakeIsToldAndWokenWhenItFallsAsleepLater) {
  sleeper_->sleeps = false;
  see(3);
  EXPECT_EQ(sleeper_->told, 3);
  EXPECT_EQ(sleeper_->wakes, 0);
  sleeper_->sleeps = true;  // it decided to sleep before it was told
  list_.wake_sleepers();
  EXPECT_EQ(sleeper_->wakes, 1);
}

TEST_F(WatchListTest, WhatIsKnownIsAskedForAndNotToldAgain) {
  see(3);
  EXPECT_EQ(list_.question().oids, "{7}");
  EXPECT_EQ(list_.question().known, "{3}");
  sleeper_->sleeps = true;
  see(3);
  EXPECT_EQ(sleeper_->wakes, 1);
}

TEST_F(WatchListTest, OneWhoWaitsIsEnoughToLook) {
  sleeper_->sleeps = false;
  EXPECT_FALSE(list_.has_waiting());
  list_.add("t", std::make_shared<Sleeper>());
  EXPECT_TRUE(list_.has_waiting());
}

TEST_F(WatchListTest, OneWhoComesLaterIsToldTheValueAtOnce) {
  see(3);
  auto later = std::make_shared<Sleeper>();
  list_.add("s", later);
  EXPECT_EQ(later->told, 3);
  list_.wake_sleepers();
  EXPECT_EQ(later->wakes, 1);
  EXPECT_EQ(sleeper_->wakes, 1);
}

TEST_F(WatchListTest, ASequenceThatWentBackIsTold) {
  see(9);
  sleeper_->sleeps = true;
  see(2);
  EXPECT_EQ(sleeper_->told, 2);
  EXPECT_EQ(sleeper_->wakes, 2);
}

TEST_F(WatchListTest, ADroppedSequenceWakesItsWatchersAndIsLookedForByItsName) {
  see(9);
  sleeper_->sleeps = true;
  list_.gone(7);
  list_.wake_sleepers();
  EXPECT_EQ(sleeper_->wakes, 2);
  EXPECT_TRUE(list_.nothing_to_ask());
  EXPECT_EQ(list_.unresolved(), std::vector<std::string>{"s"});
  sleeper_->sleeps = true;
  list_.resolve("s", 8);
  list_.saw(8, 1);
  list_.wake_sleepers();
  EXPECT_EQ(sleeper_->told, 1);
  EXPECT_EQ(sleeper_->wakes, 3);
}

TEST_F(WatchListTest, ASequenceThatIsGoneWhenANewSessionLooksForItWakesItsWatchersOnce) {
  see(9);
  sleeper_->sleeps = true;
  list_.unresolve_all();
  list_.resolve("s", 0);
  list_.wake_sleepers();
  EXPECT_EQ(sleeper_->wakes, 2);
  sleeper_->sleeps = true;
  list_.resolve("s", 0);
  list_.wake_sleepers();
  EXPECT_EQ(sleeper_->wakes, 2);
}

TEST_F(WatchListTest, AnotherSequenceOfTheSameNameIsToldWhateverItsValue) {
  see(9);
  sleeper_->sleeps = true;
  list_.unresolve_all();
  list_.resolve("s", 8);
  list_.wake_sleepers();
  EXPECT_EQ(sleeper_->wakes, 2);
  EXPECT_EQ(list_.question().known, "{0}");
}

TEST_F(WatchListTest, ASequenceThatWasSetAsideIsNotAskedForUntilItIsResolvedAgain) {
  see(9);
  sleeper_->sleeps = true;
  list_.set_aside(7);
  EXPECT_TRUE(list_.nothing_to_ask());
  list_.resolve("s", 7);
  EXPECT_EQ(list_.question().known, "{9}");
  list_.wake_sleepers();
  EXPECT_EQ(sleeper_->wakes, 1);
}

TEST_F(WatchListTest, ANewSessionResolvesAllNamesAgainAndKeepsWhatIsKnown) {
  see(9);
  list_.unresolve_all();
  EXPECT_TRUE(list_.nothing_to_ask());
  EXPECT_EQ(list_.unresolved(), std::vector<std::string>{"s"});
  list_.resolve("s", 7);
  EXPECT_EQ(list_.question().known, "{9}");
}

TEST_F(WatchListTest, AForgottenWatcherHearsNothingAndItsSequenceIsNotAskedFor) {
  sleeper_->sleeps = false;
  see(3);
  list_.remove(*sleeper_);
  sleeper_->sleeps = true;
  list_.saw(7, 4);
  list_.wake_sleepers();
  EXPECT_EQ(sleeper_->told, 3);
  EXPECT_EQ(sleeper_->wakes, 0);
  EXPECT_TRUE(list_.empty());
  EXPECT_TRUE(list_.nothing_to_ask());
}

RC_GTEST_PROP(WatchList, NoWatcherSleepsThroughAValue, ()) {
  WatchList list;
  std::vector<std::shared_ptr<Sleeper>> sleepers;
  std::int64_t value[2] = {0, 0};
  const char* const names[2] = {"a", "b"};
  for (int i = 0; i < 4; ++i) {
    sleepers.push_back(std::make_shared<Sleeper>());
    list.add(names[i % 2], sleepers.back());
  }
  list.resolve("a", 1);
  list.resolve("b", 2);
  const int steps = *rc::gen::inRange(0, 200);
  for (int step = 0; step < steps; ++step) {
    const auto one = static_cast<std::size_t>(*rc::gen::inRange(0, 4));
    Sleeper& sleeper = *sleepers[one];
    switch (*rc::gen::inRange(0, 4)) {
      case 0:
        value[one % 2] += 1;
        list.saw(static_cast<std::int64_t>(one % 2 + 1), value[one % 2]);
        break;
      case 1:
        if (!sleeper.sleeps) sleeper.read();
        break;
      case 2:  // whatever it was told since it read
        if (sleeper.has_read) sleeper.sleeps = true;
        break;
      default:
        list.wake_sleepers();
    }
  }
  // Those who were woken read; the others fall asleep, and are woken where there is more.
  for (const auto& sleeper : sleepers) sleeper->sleeps = sleeper->sleeps || sleeper->has_read;
  list.wake_sleepers();
  for (const auto& sleeper : sleepers) {
    if (!sleeper->sleeps) sleeper->read();
  }
  for (std::size_t i = 0; i < 4; ++i) RC_ASSERT(sleepers[i]->read_up_to == value[i % 2]);
}

TEST(PauseBetweenLooks, FollowsWhatHappened) {
  using namespace std::chrono_literals;
  EXPECT_EQ(pause_between_looks(0ms), 1ms);
  EXPECT_EQ(pause_between_looks(999ms), 1ms);
  EXPECT_EQ(pause_between_looks(1s), 5ms);
  EXPECT_EQ(pause_between_looks(59s), 5ms);
  EXPECT_EQ(pause_between_looks(60s), 25ms);
}

}  // namespace
}  // namespace relay::coordinator
