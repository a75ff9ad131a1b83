#include "outbox/column_order.h"

#include <gtest/gtest.h>

namespace relay::outbox {
namespace {

/// region, day, revenue, n
ColumnOrder demo() {
  return ColumnOrder({{"\"n\"", 3}, {"\"day\"", 1}, {"\"region\"", 0}, {"\"revenue\"", 2}});
}

std::string restored(ColumnOrder order, std::string text) {
  order.restore(text.data(), text.size());
  return text;
}

TEST(ColumnOrder, IsThatOfTheTable) {
  EXPECT_EQ(restored(demo(), R"({"n": 1, "day": "d", "region": "eu", "revenue": 10.50})"),
            R"({"region": "eu", "day": "d", "revenue": 10.50, "n": 1})");
  EXPECT_EQ(
      restored(demo(), R"([{"n": 1, "region": null}, {}, {"day": "}{", "region": "a\"b\\"}])"),
      R"([{"region": null, "n": 1}, {}, {"region": "a\"b\\", "day": "}{"}])");
}

TEST(ColumnOrder, ValuesKeepTheirOwn) {
  EXPECT_EQ(
      restored(demo(), R"([{"n": {"region": [1, {"n": 2}], "day": "]"}, "region": [{"b": "{"}]}])"),
      R"([{"region": [{"b": "{"}], "n": {"region": [1, {"n": 2}], "day": "]"}}])");
}

TEST(ColumnOrder, WhatIsNoColumnGoesLast) {
  EXPECT_EQ(
      restored(demo(), R"({"m": 1, "n": 2, "new": [], "region": 3, "__pgtrickle_omitted": ["x"]})"),
      R"({"region": 3, "n": 2, "m": 1, "new": [], "__pgtrickle_omitted": ["x"]})");
  const std::string strange = R"({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1, "h": 1, )"
                              R"("i": 1, "region": 2})";
  EXPECT_EQ(restored(demo(), strange), strange);
}

TEST(ColumnOrder, WhatJsonbDoesNotWriteStaysAsItIs) {
  for (const std::string text :
       {R"({"n":1,"region":2})", R"({"n": 1,  "region": 2})", R"({"n": 1)", R"({"n": )", R"({"n)",
        R"([{"n": 1, "region": "x])", "[", "", "[1, 2]", "null", R"({"n": 1, "region": 2,)"}) {
    EXPECT_EQ(restored(demo(), text), text);
  }
}

TEST(ColumnOrder, NamesAreComparedAsTheyAreWritten) {
  const ColumnOrder order({{R"("\"")", 1}, {R"("a\\")", 0}});
  EXPECT_EQ(restored(order, R"({"\"": 1, "a\\": 2})"), R"({"a\\": 2, "\"": 1})");
}

TEST(ColumnOrder, AnOrderThatIsKeptAnywayCostsNothing) {
  EXPECT_EQ(restored(ColumnOrder({{"\"a\"", 0}, {"\"bb\"", 1}}), R"({"bb": 1, "a": 2})"),
            R"({"bb": 1, "a": 2})");
  EXPECT_EQ(restored(ColumnOrder(), "{}"), "{}");
}

}  // namespace
}  // namespace relay::outbox
