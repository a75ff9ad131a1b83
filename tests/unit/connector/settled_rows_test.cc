#include "connector/settled_rows.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

using Row = SettledRows::Row;

class SettledRowsTest : public testing::Test {
 protected:
  SettledRowsTest() { rows.begin("one"); }

  /// Reads and settles these ids; the pgt_id of each is its id as text behind `life`.
  void settle(std::int64_t first, std::int64_t last, const std::string& life = "a") {
    std::vector<std::string> marks;
    std::vector<Record> records;
    for (auto id = first; id <= last; ++id) marks.push_back(life + std::to_string(id));
    for (auto id = first; id <= last; ++id) {
      Record& record = records.emplace_back();
      record.id = id;
      record.mark = marks[static_cast<std::size_t>(id - first)];
    }
    rows.read(records);
    rows.settle(last);
  }
  static std::vector<Row> there(std::int64_t first, std::int64_t last,
                                const std::string& life = "a") {
    std::vector<Row> found;
    for (auto id = first; id <= last; ++id) {
      found.push_back({id, SettledRows::tag_of(life + std::to_string(id))});
    }
    return found;
  }
  void compare(const std::vector<Row>& found, std::int64_t purged_below = 0) {
    rows.compare(rows.memory(), "server 2", found, purged_below, "outbox_t");
  }
  SettledRows rows;
};

TEST_F(SettledRowsTest, WhatIsThereIsNotLost) {
  settle(1, 100);
  compare(there(1, 200));
  EXPECT_FALSE(rows.loss());
  EXPECT_EQ(rows.memory().server, "server 2");
}

TEST_F(SettledRowsTest, WhatIsNotThereIsCountedOnce) {
  settle(1, 100);
  compare(there(1, 93));
  ASSERT_TRUE(rows.loss());
  EXPECT_EQ(rows.loss()->rows, 7);
  EXPECT_EQ(rows.loss()->first, 94);
  EXPECT_EQ(rows.loss()->last, 100);
  EXPECT_FALSE(rows.loss()->at_least);
  compare(there(1, 93));
  EXPECT_EQ(rows.loss()->rows, 7);
  rows.acknowledge();
  compare(there(1, 93));
  EXPECT_FALSE(rows.loss());
}

TEST_F(SettledRowsTest, AnotherRowOfTheSameIdIsAnother) {
  settle(1, 100);
  auto found = there(1, 93);
  for (const Row& row : there(94, 200, "b")) found.push_back(row);
  compare(found);
  EXPECT_EQ(rows.loss()->rows, 7);
  // The new rows are delivered, and are lost by a second failover.
  settle(94, 120, "b");
  compare(there(1, 93));
  EXPECT_EQ(rows.loss()->rows, 7 + 27);
}

TEST_F(SettledRowsTest, ARowInTheMiddleMayBeLost) {
  settle(1, 3);
  auto found = there(1, 3);
  found.erase(found.begin() + 1);
  compare(found);
  EXPECT_EQ(rows.loss()->rows, 1);
  EXPECT_EQ(rows.loss()->first, 2);
}

TEST_F(SettledRowsTest, WhatRetentionDeletedIsNotLost) {
  settle(1, 100);
  compare(there(51, 100), 50);
  EXPECT_FALSE(rows.loss());
}

TEST_F(SettledRowsTest, WhatWasReadAndNotSettledIsNotLost) {
  settle(1, 10);
  Record record;
  record.id = 11;
  record.mark = "a11";
  rows.read(std::span(&record, 1));
  compare(there(1, 10));
  EXPECT_FALSE(rows.loss());
  rows.begin("one");  // it is read anew
  rows.settle(11);
  compare(there(1, 10));
  EXPECT_FALSE(rows.loss());
}

TEST_F(SettledRowsTest, ARowThatIsSettledDuringTheLookIsRemembered) {
  settle(1, 10);
  const auto memory = rows.memory();
  settle(11, 12);
  rows.compare(memory, "server 2", there(1, 9), 0, "outbox_t");
  EXPECT_EQ(rows.loss()->rows, 1);
  EXPECT_EQ(rows.memory().rows.size(), 11u);
}

TEST_F(SettledRowsTest, WhatIsSettledTwiceIsOneRow) {
  settle(1, 10);
  rows.begin("one");
  settle(5, 12);
  EXPECT_EQ(rows.memory().rows.size(), 12u);
  compare(there(1, 4));
  EXPECT_EQ(rows.loss()->rows, 8);
}

TEST_F(SettledRowsTest, MoreThanItRemembersIsAtLeastThatMany) {
  const auto all = static_cast<std::int64_t>(SettledRows::kKept) + 5;
  settle(1, all);
  compare({});
  EXPECT_EQ(rows.loss()->rows, static_cast<std::int64_t>(SettledRows::kKept));
  EXPECT_TRUE(rows.loss()->at_least);
}

TEST_F(SettledRowsTest, RowsOfAnotherOutboxAreForgotten) {
  settle(1, 10);
  const auto memory = rows.memory();
  rows.begin("two");
  EXPECT_TRUE(rows.empty());
  rows.compare(memory, "server 2", {}, 0, "outbox_t");
  EXPECT_FALSE(rows.loss());
}

}  // namespace
}  // namespace relay
