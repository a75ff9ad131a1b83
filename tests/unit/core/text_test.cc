#include "core/text.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <simdjson.h>

#include <array>
#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace relay {
namespace {

using namespace std::chrono;

TEST(JsonString, LeavesOrdinaryTextAlone) {
  EXPECT_EQ(json_string(""), "\"\"");
  EXPECT_EQ(json_string("grüße 😀 / </script>"), "\"grüße 😀 / </script>\"");
}

TEST(JsonString, EscapesWhatJsonDoesNotAllow) {
  EXPECT_EQ(json_string("a\"b\\c\n\t\r\b\f"), R"("a\"b\\c\n\t\r\b\f")");
  EXPECT_EQ(json_string(std::string_view("\0\x1f", 2)), R"("\u0000\u001f")");
}

TEST(JsonString, ReplacesEachByteThatIsNotUtf8) {
  EXPECT_EQ(json_string("a\xFFz"), "\"a\uFFFDz\"");
  EXPECT_EQ(json_string("\xC3"), "\"\uFFFD\"");                      // cut off
  EXPECT_EQ(json_string("\xC0\xAF"), "\"\uFFFD\uFFFD\"");            // over-long
  EXPECT_EQ(json_string("\xED\xA0\x80"), "\"\uFFFD\uFFFD\uFFFD\"");  // surrogate
  EXPECT_EQ(json_string("\xF4\x90\x80\x80"), "\"\uFFFD\uFFFD\uFFFD\uFFFD\"");
}

RC_GTEST_PROP(JsonString, AnyBytesGiveValidJsonAndUtf8ComesBackUnchanged,
              (const std::string& bytes)) {
  const std::string json = json_string(bytes);
  simdjson::dom::parser parser;
  const simdjson::padded_string padded("[" + json + "]");
  std::string_view back;
  RC_ASSERT(parser.parse(padded).at(0).get_string().get(back) == simdjson::SUCCESS);
  if (simdjson::validate_utf8(bytes)) RC_ASSERT(back == bytes);
}

TEST(Timestamp, IsUtcWithMillisecondsCutOff) {
  const Timestamp at = sys_days(2026y / 4 / 27) + 10h + 15min + 3s + 412ms + 999us;
  EXPECT_EQ(format_timestamp(at), "2026-04-27T10:15:03.412Z");
  EXPECT_EQ(format_timestamp(Timestamp{}), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(format_timestamp(sys_days(2024y / 2 / 29) + 23h + 59min + 59s + 999ms),
            "2024-02-29T23:59:59.999Z");
}

TEST(Timestamp, CountsDownwardsBefore1970) {
  EXPECT_EQ(format_timestamp(Timestamp(-1us)), "1969-12-31T23:59:59.999Z");
  EXPECT_EQ(format_timestamp(sys_days(year(-1) / 1 / 2)), "-0001-01-02T00:00:00.000Z");
  EXPECT_EQ(format_timestamp(sys_days(year(12345) / 1 / 2)), "+12345-01-02T00:00:00.000Z");
}

constexpr std::array<std::string_view, 5> kNames = {"stream_table", "op", "outbox_id", "refresh_id",
                                                    "key"};

TEST(Nearest, FindsSlipsOfTheFinger) {
  EXPECT_EQ(nearest("stream_tabel", kNames), "stream_table");
  EXPECT_EQ(nearest("Stream-Table", kNames), "stream_table");
  EXPECT_EQ(nearest("outboxid", kNames), "outbox_id");
  EXPECT_EQ(nearest("refreshid", kNames), "refresh_id");
  EXPECT_EQ(nearest("kye", kNames), "key");
  EXPECT_EQ(nearest("op", kNames), "op");
}

TEST(Nearest, DoesNotGuessWildly) {
  EXPECT_EQ(nearest("region", kNames), "");
  EXPECT_EQ(nearest("", kNames), "");
  EXPECT_EQ(nearest("x", kNames), "");
  EXPECT_EQ(nearest("key", {}), "");
}

TEST(Trimmed, HasNoBlanksAtItsEnds) {
  EXPECT_EQ(trimmed(" \t a b \r\n"), "a b");
  EXPECT_EQ(trimmed(" \n"), "");
  EXPECT_EQ(trimmed(""), "");
  EXPECT_EQ(trimmed("  a\t ", " "), "a\t");
}

TEST(Case, CountsForLettersOfAsciiOnly) {
  EXPECT_EQ(lower_case("Webhook-ID [Ä]"), "webhook-id [Ä]");
  EXPECT_TRUE(equal_ignoring_case("X-Trace", "x-tRACE"));
  EXPECT_FALSE(equal_ignoring_case("x-trace", "x-trac"));
  EXPECT_FALSE(equal_ignoring_case("[", "{"));
  EXPECT_TRUE(contains_ignoring_case("Hostname MISMATCH", "name mis"));
  EXPECT_TRUE(contains_ignoring_case("a", ""));
  EXPECT_FALSE(contains_ignoring_case("", "a"));
}

TEST(JoinNames, ReadsLikeASentence) {
  EXPECT_EQ(join_names({}), "");
  EXPECT_EQ(join_names(std::vector<std::string_view>{"a"}), "a");
  EXPECT_EQ(join_names(std::vector<std::string_view>{"a", "b"}), "a and b");
  EXPECT_EQ(join_names(std::vector<std::string_view>{"a", "b", "c"}), "a, b and c");
}

TEST(ShellWord, IsOneWordWhateverItHolds) {
  EXPECT_EQ(shell_word("orders.v1"), "orders.v1");
  EXPECT_EQ(shell_word(""), "''");
  EXPECT_EQ(shell_word("two words"), "'two words'");
  EXPECT_EQ(shell_word("-f"), "'-f'");
  EXPECT_EQ(shell_word("a'; rm b"), "'a'\\''; rm b'");
  EXPECT_EQ(shell_word("$(b) `c` >"), "'$(b) `c` >'");
}

}  // namespace
}  // namespace relay
