#include "envelope/row_filter.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "envelope/rows.h"

namespace relay::envelope {
namespace {

constexpr const char* kIn = R"({"id": 1, "region": "eu"})";
constexpr const char* kOut = R"({"id": 1, "region": "us"})";
constexpr const char* kUnclear = R"({"id": 1})";

/// What the filter leaves of a change of these rows: "nothing", or the change, with the reason
/// where it is refused.
std::string left(TestRows rows, const Change& change, std::string_view filter = "region = 'eu'") {
  std::optional<Filter> compiled;
  if (!filter.empty()) {
    auto made = Filter::compile(filter);
    if (!made) return made.error().message;
    compiled.emplace(std::move(*made));
  }
  Refusals refusals;
  refusals.start("orders");
  RowFilter row_filter(compiled, rows.reader(), refusals);
  row_filter.judge(*rows);
  const auto result = row_filter.apply(change);
  if (!result) return "nothing";
  const SharedError refusal = row_filter.refusal(*result);
  return described(*result) + (refusal ? ", refused: " + refusal->message : "");
}

constexpr Change kUpdate{Op::update, 0, 1, 0, false};
constexpr Change kInsert{Op::insert, kNoRow, 0, 0, false};
constexpr Change kDelete{Op::remove, 0, kNoRow, 0, false};

TEST(RowFilter, LeavesOutARowThatDoesNotPass) {
  EXPECT_EQ(left({kIn}, kInsert), "insert - 0");
  EXPECT_EQ(left({kOut}, kInsert), "nothing");
  EXPECT_EQ(left({kIn}, kDelete), "delete 0 -");
  EXPECT_EQ(left({kOut}, kDelete), "nothing");
}

TEST(RowFilter, MakesAnUpdateWhatItIsToTheFilteredTable) {
  EXPECT_EQ(left({kIn, kIn}, kUpdate), "update 0 1");
  EXPECT_EQ(left({kOut, kIn}, kUpdate), "insert - 1");
  EXPECT_EQ(left({kIn, kOut}, kUpdate), "delete 0 -");
  EXPECT_EQ(left({kOut, kOut}, kUpdate), "nothing");
}

TEST(RowFilter, KeepsAndRefusesWhatItCannotJudge) {
  EXPECT_TRUE(left({kUnclear}, kInsert).starts_with("insert - 0, refused: orders: "));
  EXPECT_TRUE(left({kUnclear, kIn}, kUpdate).starts_with("update 0 1, refused: orders: "));
  EXPECT_TRUE(left({kIn, kUnclear}, kUpdate).starts_with("update 0 1, refused: orders: "));
  EXPECT_TRUE(left({kUnclear, kOut}, kUpdate).starts_with("update 0 1, refused: orders: "));
  EXPECT_TRUE(left({kOut, kUnclear}, kUpdate).starts_with("update 0 1, refused: orders: "));
}

TEST(RowFilter, JudgesTheNewRowAloneOfAChangeThatIsNoUpdate) {
  const Change refresh{Op::refresh, 0, 1, 0, false};
  EXPECT_EQ(left({kUnclear, kIn}, refresh), "refresh 0 1");
  EXPECT_EQ(left({kIn, kOut}, refresh), "nothing");
}

TEST(RowFilter, LetsEverythingPassWithoutAFilter) {
  EXPECT_EQ(left({kUnclear, kOut}, kUpdate, ""), "update 0 1");
  EXPECT_EQ(left({kOut}, kInsert, ""), "insert - 0");
}

TEST(RowFilter, ForgetsTheRowsOfTheRecordBefore) {
  const std::optional<Filter> filter = *Filter::compile("region = 'eu'");
  TestRows unclear{kUnclear};
  TestRows clear{kIn};
  Refusals refusals;
  RowFilter row_filter(filter, clear.reader(), refusals);
  row_filter.judge(*unclear);
  ASSERT_NE(row_filter.refusal(kInsert), nullptr);
  row_filter.judge(*clear);
  EXPECT_EQ(row_filter.refusal(kInsert), nullptr);
}

}  // namespace
}  // namespace relay::envelope
