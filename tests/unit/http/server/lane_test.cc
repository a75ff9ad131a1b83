#include "http/server/lane.h"

#include <gtest/gtest.h>

namespace relay::http {
namespace {

struct Job {
  std::string path;
};

std::shared_ptr<Job> job(std::string path) {
  return std::make_shared<Job>(Job{std::move(path)});
}

TEST(LaneQueue, BeginsNoMoreJobsThanItHasWorkersInTheirOrder) {
  LaneQueue<Job> queue({.workers = 2, .waiting = 8});
  for (const char* path : {"a", "b", "c", "d"}) EXPECT_TRUE(queue.add(job(path)));
  EXPECT_EQ(queue.begin()->path, "a");
  EXPECT_EQ(queue.begin()->path, "b");
  EXPECT_EQ(queue.begin(), nullptr);
  queue.finished();
  EXPECT_EQ(queue.begin()->path, "c");
  EXPECT_EQ(queue.begin(), nullptr);
}

TEST(LaneQueue, RefusesWhatWouldWaitBehindTooMany) {
  LaneQueue<Job> queue({.workers = 1, .waiting = 2});
  EXPECT_TRUE(queue.add(job("a")));
  ASSERT_TRUE(queue.begin());
  EXPECT_TRUE(queue.add(job("b")));
  EXPECT_TRUE(queue.add(job("c")));
  EXPECT_FALSE(queue.add(job("d")));
  queue.finished();
  ASSERT_TRUE(queue.begin());
  EXPECT_TRUE(queue.add(job("d")));
}

TEST(LaneQueue, AFreeWorkerTakesAJobWhereNoneMayWait) {
  LaneQueue<Job> queue({.workers = 1, .waiting = 0});
  EXPECT_TRUE(queue.add(job("a")));
  ASSERT_TRUE(queue.begin());
  EXPECT_FALSE(queue.add(job("b")));
}

TEST(LaneQueue, OnlyASharedLaneFindsAJobThatWaitsForTheSamePath) {
  LaneQueue<Job> alone({.shared = false});
  LaneQueue<Job> shared({.shared = true});
  const auto first = job("a");
  alone.add(first);
  shared.add(first);
  EXPECT_EQ(alone.find("a"), nullptr);
  EXPECT_EQ(shared.find("a"), first);
  EXPECT_EQ(shared.find("b"), nullptr);
  // What has begun may have read what changed since.
  ASSERT_EQ(shared.begin(), first);
  EXPECT_EQ(shared.find("a"), nullptr);
}

TEST(LaneQueue, AJobThatWaitsCanBeTakenBack) {
  LaneQueue<Job> queue({.workers = 1, .waiting = 1});
  const auto first = job("a");
  const auto second = job("b");
  queue.add(first);
  ASSERT_TRUE(queue.begin());
  queue.add(second);
  EXPECT_FALSE(queue.withdraw(first));
  EXPECT_TRUE(queue.withdraw(second));
  EXPECT_TRUE(queue.add(job("c")));
  queue.finished();
  EXPECT_EQ(queue.begin()->path, "c");
}

}  // namespace
}  // namespace relay::http
