#include "backends/file/format.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "messages.h"

namespace relay::file {
namespace {

std::string line(Format format, std::string_view body, std::string_view type = "application/json") {
  Messages messages;
  Message& message = messages.add("id-1", body);
  message.content_type = type;
  std::string out;
  const auto appended = append_message(out, format, message);
  return appended ? out : "rejected: " + appended.error().message;
}

TEST(JsonLines, WritesTheBodyByteForByte) {
  EXPECT_EQ(line(Format::jsonl, R"({"a": 12345678901234567890123456789012345.10, "b":"ü\n"})"),
            "{\"a\": 12345678901234567890123456789012345.10, \"b\":\"ü\\n\"}\n");
}

TEST(JsonLines, PutsABodyWithLineBreaksOnOneLine) {
  EXPECT_EQ(line(Format::jsonl, "{\n  \"a\": \"x  y \\\" z\",\r\n  \"b\": [1, 2]\n}"),
            "{\"a\":\"x  y \\\" z\",\"b\":[1,2]}\n");
}

TEST(JsonLines, MakesTextThatIsNotJsonAJsonString) {
  EXPECT_EQ(line(Format::jsonl, "two\nlines", "text/plain"), "\"two\\nlines\"\n");
}

TEST(JsonLines, RejectsBytesThatAreNoText) {
  for (const char* bytes :
       {"\xff\xfe", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    EXPECT_TRUE(line(Format::jsonl, bytes, "application/octet-stream").starts_with("rejected"));
  }
}

TEST(PrettyJson, IndentsAndLeavesNumbersAlone) {
  EXPECT_EQ(line(Format::json_pretty, R"({"a":{"b":[1.50,{}],"c":[]},"d":"{,:}"})"),
            "{\n  \"a\": {\n    \"b\": [\n      1.50,\n      {}\n    ],\n    \"c\": []\n  },\n"
            "  \"d\": \"{,:}\"\n}\n");
}

TEST(Csv, QuotesWhatNeedsIt) {
  Messages messages;
  Message& message = messages.add("p:1-aa:0", R"({"a":"x"})");
  message.key = "k,1";
  message.created_at = Timestamp(std::chrono::microseconds(1777284903412000));
  std::string out;
  ASSERT_TRUE(append_message(out, Format::csv, message));
  EXPECT_EQ(out,
            "p:1-aa:0,orders,\"k,1\",insert,2026-04-27T10:15:03.412Z,\"{\"\"a\"\":\"\"x\"\"}\"\n");
}

TEST(Csv, RejectsANulByteAndAppendsNothing) {
  Messages messages;
  const Message& message = messages.add("id", std::string_view("a\0b", 3));
  std::string out = "before";
  const auto appended = append_message(out, Format::csv, message);
  ASSERT_FALSE(appended);
  EXPECT_EQ(appended.error().error_class, ErrorClass::rejected);
  EXPECT_EQ(out, "before");
}

// However a file of whole messages is torn, what is found is the longest run of whole messages.
void finds_whole_messages(Format format) {
  rc::check([format] {
    std::string text(header_of(format));
    std::vector<std::size_t> ends{0};
    if (!text.empty()) ends.push_back(text.size());
    const auto bodies = *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 6));
    constexpr std::string_view kBodies[] = {
        "{}", "[1,2]",          R"({"a":{"b":[1,{}]}})", R"({"t":"x\n\"y\"","n":null})",
        "17", R"([{"a":1},[]])"};
    for (const int n : bodies) {
      Messages messages;
      Message& message = messages.add("id\n\"" + std::to_string(n), kBodies[n]);
      RC_ASSERT(append_message(text, format, message).has_value());
      ends.push_back(text.size());
    }
    const auto torn = *rc::gen::inRange<std::size_t>(0, text.size() + 1);
    const auto pieces = *rc::gen::inRange<std::size_t>(1, 50);
    WholeMessages whole(format);
    for (std::size_t at = 0; at < torn; at += pieces) {
      whole.feed(std::string_view(text).substr(at, std::min(pieces, torn - at)));
    }
    std::size_t expected = 0;
    for (const std::size_t end : ends) {
      if (end <= torn) expected = end;
    }
    RC_ASSERT(whole.size() == expected);
  });
}

TEST(WholeMessages, AreFoundInTornJsonLines) {
  finds_whole_messages(Format::jsonl);
}
TEST(WholeMessages, AreFoundInTornPrettyJson) {
  finds_whole_messages(Format::json_pretty);
}
TEST(WholeMessages, AreFoundInTornCsvWithLineBreaksInFields) {
  finds_whole_messages(Format::csv);
}

}  // namespace
}  // namespace relay::file
