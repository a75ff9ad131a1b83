#include "stream/snapshot.h"

#include <gtest/gtest.h>

#include <optional>

namespace relay::stream {
namespace {

TEST(Snapshot, SeesWhatHadEndedByThen) {
  const auto snapshot = Snapshot::parse("10:20:12,15");
  ASSERT_TRUE(snapshot);
  EXPECT_TRUE(snapshot->sees(9));
  EXPECT_TRUE(snapshot->sees(10));
  EXPECT_FALSE(snapshot->sees(12));
  EXPECT_TRUE(snapshot->sees(14));
  EXPECT_FALSE(snapshot->sees(15));
  EXPECT_TRUE(snapshot->sees(19));
  EXPECT_FALSE(snapshot->sees(20));
}

TEST(Snapshot, OneWithoutOpenTransactionsAndOneOfTheBeginning) {
  EXPECT_TRUE(Snapshot::parse("20:20:")->sees(19));
  EXPECT_FALSE(Snapshot::parse("20:20:")->sees(20));
  EXPECT_FALSE(Snapshot::parse("1:1:")->sees(1));
  EXPECT_FALSE(Snapshot().sees(0));
}

TEST(Snapshot, NumbersGoBeyond32Bits) {
  const auto snapshot = Snapshot::parse("18446744073709551613:18446744073709551615:");
  ASSERT_TRUE(snapshot);
  EXPECT_TRUE(snapshot->sees(18446744073709551614U));
}

TEST(Xid, IsAWholeNumber) {
  EXPECT_EQ(parse_xid("18446744073709551615"), 18446744073709551615U);
  for (const char* text : {"", "-1", "1 ", "1,2", "a", "18446744073709551616"}) {
    EXPECT_EQ(parse_xid(text), std::nullopt) << text;
  }
}

TEST(Snapshot, OtherTextsAreRefused) {
  for (const char* text : {"", "10", "10:", "10:20", ":20:", "20:10:", "10:20:5", "10:20:20",
                           "10:20:12,", "10:20:12;15", "10:20:a", "-1:20:", "10:20:12,15 "}) {
    EXPECT_EQ(Snapshot::parse(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace relay::stream
