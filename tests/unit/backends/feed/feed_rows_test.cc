#include "backends/feed/feed_rows.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

namespace relay::feed {
namespace {

using Values = std::vector<std::optional<std::string>>;

std::uint32_t number(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

Values texts(std::string_view array) {
  Values values;
  for (std::size_t at = 20; at < array.size();) {
    const std::uint32_t size = number(array, at);
    at += 4;
    if (size == 0xffffffffu) {
      values.emplace_back();
      continue;
    }
    values.emplace_back(std::string(array.substr(at, size)));
    at += size;
  }
  return values;
}

std::vector<std::uint32_t> numbers(std::string_view array) {
  std::vector<std::uint32_t> found;
  for (std::size_t at = 20; at < array.size(); at += 12) found.push_back(number(array, at + 8));
  return found;
}

Message change(std::string_view body, std::int64_t ordinal, bool full_refresh = false) {
  Message message;
  message.body = body;
  message.outbox_id = 7;
  message.ordinal = ordinal;
  message.full_refresh = full_refresh;
  return message;
}

constexpr std::string_view kInsert =
    R"({"stream_table":"t","op":"insert","key":{"id":1},"new":{"id":1,"x":"\"}{"},"old":null})";
constexpr std::string_view kUpdate =
    R"({"key":{"id":1},"new":{"id":1,"n":1.50},"old":{"id":1,"n":1}})";
constexpr std::string_view kDelete = R"({"key":null,"new":null,"old":{"id":1}})";
constexpr std::string_view kEmpty = R"({"key":null,"new":null,"old":null})";

TEST(FeedRows, AChangeIsOneRow) {
  FeedRows rows(false);
  ASSERT_TRUE(rows.add(change(kInsert, 0)));
  ASSERT_TRUE(rows.add(change(kUpdate, 1)));
  ASSERT_TRUE(rows.add(change(kDelete, 4)));
  EXPECT_EQ(rows.count(), 3u);
  const auto arrays = rows.finish();
  EXPECT_EQ(numbers(arrays[0]), (std::vector<std::uint32_t>{7, 7, 7}));
  EXPECT_EQ(numbers(arrays[1]), (std::vector<std::uint32_t>{1, 2, 5}));
  EXPECT_EQ(texts(arrays[2]), (Values{"I", "U", "D"}));
  EXPECT_EQ(texts(arrays[3]), (Values{R"({"id":1})", R"({"id":1})", std::nullopt}));
  EXPECT_EQ(texts(arrays[4]),
            (Values{R"({"id":1,"x":"\"}{"})", R"({"id":1,"n":1.50})", std::nullopt}));
  EXPECT_EQ(texts(arrays[5]), (Values{std::nullopt, R"({"id":1,"n":1})", R"({"id":1})"}));
}

TEST(FeedRows, AFullRefreshIsOneRowBeforeItsRows) {
  for (const bool with_rows : {false, true}) {
    FeedRows rows(with_rows);
    ASSERT_TRUE(rows.add(change(kInsert, 0, true)));
    ASSERT_TRUE(rows.add(change(kInsert, 1, true)));
    const auto arrays = rows.finish();
    EXPECT_EQ(texts(arrays[2]), with_rows ? (Values{"F", "I", "I"}) : (Values{"F"}));
    EXPECT_EQ(numbers(arrays[1]),
              with_rows ? (std::vector<std::uint32_t>{0, 1, 2}) : (std::vector<std::uint32_t>{0}));
  }
}

TEST(FeedRows, ALaterPartOfAFullRefreshHasNoRowOfItsOwn) {
  FeedRows rows(false);
  ASSERT_TRUE(rows.add(change(kInsert, 1000, true)));
  EXPECT_TRUE(rows.empty());
}

TEST(FeedRows, AFullRefreshWithoutRowsIsOneRow) {
  FeedRows rows(true);
  ASSERT_TRUE(rows.add(change(kEmpty, 0, true)));
  EXPECT_EQ(texts(rows.finish()[2]), Values{"F"});
}

TEST(FeedRows, OtherMessagesAreRefused) {
  for (const std::string_view body : {"", "[]", "{\"new\":{}}", "{\"new\":{},\"old\":", "x"}) {
    FeedRows rows(true);
    const auto added = rows.add(change(body, 0));
    ASSERT_FALSE(added) << body;
    EXPECT_EQ(added.error().error_class, ErrorClass::misconfigured);
  }
  Message event = change(kInsert, 0);
  event.outbox_id = 0;
  FeedRows rows(true);
  EXPECT_FALSE(rows.add(event));
}

}  // namespace
}  // namespace relay::feed
