#include "outbox/backlog.h"

#include <gtest/gtest.h>

#include "outbox/underway.h"

namespace relay::outbox {
namespace {

using std::chrono::milliseconds;

Backlog::Time at(int ms) {
  return Backlog::Time(std::chrono::hours(1) + milliseconds(ms));
}

TEST(Backlog, IsCountedOnceASecond) {
  Backlog backlog;
  EXPECT_TRUE(backlog.is_due(at(0)));
  backlog.counted(7, at(0), at(1));
  EXPECT_EQ(backlog.rows(), 7);
  EXPECT_FALSE(backlog.is_due(at(999)));
  EXPECT_TRUE(backlog.is_due(at(1000)));
}

TEST(Backlog, IsCountedLessOftenWhereThatTakesLong) {
  Backlog backlog;
  backlog.counted(7, at(0), at(50));
  EXPECT_FALSE(backlog.is_due(at(9999)));
  EXPECT_TRUE(backlog.is_due(at(10000)));
}

TEST(Backlog, ShrinksByWhatIsHandedOutAndNeverBelowZero) {
  Backlog backlog;
  backlog.counted(7, at(0), at(1));
  backlog.handed_out(5);
  EXPECT_EQ(backlog.rows(), 2);
  backlog.handed_out(5);
  EXPECT_EQ(backlog.rows(), 0);
}

TEST(Backlog, KeepsWhatItKnowsWhereCountingFails) {
  Backlog backlog;
  backlog.counted(7, at(0), at(1));
  backlog.counted(std::nullopt, at(1000), at(1001));
  EXPECT_EQ(backlog.rows(), 7);
  EXPECT_FALSE(backlog.is_due(at(1500)));
}

RecordBatch batch_of(std::initializer_list<Position> positions) {
  RecordBatch batch;
  for (const Position& position : positions) {
    Record record;
    record.id = position.id;
    record.row = position.row;
    batch.records.push_back(std::move(record));
  }
  return batch;
}

TEST(Underway, CountsRowsUntilTheirBatchIsSettled) {
  Underway underway;
  underway.add(batch_of({{1, 0, {}}, {2, 0, {}}}));
  underway.add(batch_of({{3, 0, {}}}));
  EXPECT_EQ(underway.rows(), 3);
  underway.settle({1, 0, {}});
  EXPECT_EQ(underway.rows(), 3);
  underway.settle({2, 0, {}});
  EXPECT_EQ(underway.rows(), 1);
  underway.settle({3, 0, {}});
  EXPECT_EQ(underway.rows(), 0);
}

TEST(Underway, APartOfAClaimCheckIsNoRow) {
  Underway underway;
  underway.add(batch_of({{1, 0, {}}, {1, 1000, {}}}));
  EXPECT_EQ(underway.rows(), 1);
  underway.settle({1, 0, {}});
  EXPECT_EQ(underway.rows(), 1);
  underway.settle({1, 1000, {}});
  EXPECT_EQ(underway.rows(), 0);
}

}  // namespace
}  // namespace relay::outbox
