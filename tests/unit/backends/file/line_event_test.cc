#include "backends/file/line_event.h"

#include <gtest/gtest.h>

namespace relay::file {
namespace {

class LineEventTest : public testing::Test {
 protected:
  Record record_of(std::string_view text, bool too_long = false) {
    const Line line{text, 0, static_cast<std::int64_t>(text.size()) + 1, too_long};
    const auto made_up_id = [this] {
      ++made_up_ids_;
      return std::string("p:made:up");
    };
    return to_record(line, made_up_id, {"p:", "in.jsonl", 100}, mapping_, arena_);
  }
  Event event_of(std::string_view text) { return std::get<Event>(record_of(text).content); }

  FieldMapping mapping_;
  Arena arena_;
  int made_up_ids_ = 0;
};

TEST_F(LineEventTest, TheLineNamesIdAndType) {
  const std::string text = R"({"event_type": "order\u0021", "id": "a:b", "dedup_key": "c"})";
  const Event event = event_of(text);
  EXPECT_EQ(event.id, "p:a%3Ab");
  EXPECT_EQ(event.type, "order!");
  EXPECT_EQ(event.payload, text);
  EXPECT_EQ(event.content_type, "");
  EXPECT_EQ(made_up_ids_, 0);
}

TEST_F(LineEventTest, ANumberIsAnId) {
  EXPECT_EQ(event_of(R"({"id": 12345678901234567890.50 , "n": 1})").id,
            "p:12345678901234567890.50");
}

TEST_F(LineEventTest, TheKeyOfDuplicatesStandsInForTheId) {
  EXPECT_EQ(event_of(R"({"dedup_key": "c", "id": ""})").id, "p:c");
  EXPECT_EQ(event_of(R"({"dedup_key": "c", "id": null})").id, "p:c");
}

TEST_F(LineEventTest, OtherLinesHaveAnIdThatIsMadeUp) {
  for (const std::string_view text : {R"({"n": 1})", R"({"id": {"n": 1}})", "[1]", "no JSON", ""}) {
    EXPECT_EQ(event_of(text).id, "p:made:up") << text;
  }
  EXPECT_EQ(made_up_ids_, 5);
}

TEST_F(LineEventTest, EachRecordKeepsItsOwnTexts) {
  const Event first = event_of(R"({"id": "a-first-id-of-some-length", "event_type": "one"})");
  const Event second = event_of(R"({"id": "the-other-id-of-this-test", "event_type": "two"})");
  EXPECT_EQ(first.id, "p:a-first-id-of-some-length");
  EXPECT_EQ(first.type, "one");
  EXPECT_EQ(second.id, "p:the-other-id-of-this-test");
}

TEST_F(LineEventTest, ALineThatIsTooLongIsRefused) {
  const Record record = record_of(R"({"id": "a")", true);
  ASSERT_TRUE(record.refused);
  EXPECT_EQ(record.refused->code, "too_large");
  EXPECT_EQ(std::get<Event>(record.content).id, "p:made:up");
}

}  // namespace
}  // namespace relay::file
