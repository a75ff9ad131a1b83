#include "envelope/json_reader.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>
#include <vector>

#include "core/arena.h"
#include "core/text.h"

namespace relay::envelope {
namespace {

struct JsonReaderTest : testing::Test {
  Arena arena;
  JsonReader reader;
  Rows rows;
};

TEST_F(JsonReaderTest, CutsRowsAndMembersByteForByte) {
  const std::string_view json = arena.copy(
      "[ {\"a\" : 1.0 , \"b\":{\"x\":[1, {}]} , \"c\\\"d\":\"}]\\\"\" } ,{},{\"n\":null}\n]");
  ASSERT_TRUE(reader.slice_array(json, rows));
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows.text(0), "{\"a\" : 1.0 , \"b\":{\"x\":[1, {}]} , \"c\\\"d\":\"}]\\\"\" }");
  EXPECT_EQ(rows.text(1), "{}");
  EXPECT_EQ(rows.text(2), "{\"n\":null}");
  ASSERT_EQ(rows.members(0).size(), 3u);
  EXPECT_EQ(*rows.find(0, "a"), "1.0");
  EXPECT_EQ(*rows.find(0, "b"), "{\"x\":[1, {}]}");
  EXPECT_EQ(*rows.find(0, "c\"d"), "\"}]\\\"\"");
  EXPECT_EQ(rows.members(0)[1].text, "\"b\":{\"x\":[1, {}]}");
  EXPECT_EQ(rows.members(0)[2].text, "\"c\\\"d\":\"}]\\\"\"");
  EXPECT_EQ(rows.find(1, "a"), nullptr);
}

TEST_F(JsonReaderTest, TakesBackWhatItHadCutWhenTheRestIsBroken) {
  ASSERT_TRUE(reader.slice_array(arena.copy("[{\"a\": 1}]"), rows));
  for (const char* broken :
       {"[{\"a\": 1}, 2]", "[{\"a\": 1}", "[{\"a\": 1}]x", "[{\"a\": }]", "[{\"a\": 1},]", "{}",
        "]", "[{\"a\": 1}{\"b\": 2}]", "[{\"a\": \"x]", "[{1: 2}]", "[{\"a\": [1}]]"}) {
    EXPECT_FALSE(reader.slice_array(arena.copy(broken), rows)) << broken;
    EXPECT_EQ(rows.size(), 1u);
  }
  EXPECT_TRUE(reader.slice_array("", rows));
  EXPECT_TRUE(reader.slice_array("[]", rows));
  EXPECT_FALSE(reader.slice_object("", rows));
  EXPECT_FALSE(reader.slice_object(arena.copy("[]"), rows));
  EXPECT_EQ(rows.size(), 1u);
}

TEST_F(JsonReaderTest, DoesNotFallIntoDeepNesting) {
  const std::string deep(100000, '[');
  EXPECT_FALSE(reader.slice_array(arena.copy(deep), rows));
  EXPECT_FALSE(reader.slice_array(arena.copy("[{\"a\": " + deep), rows));
}

TEST_F(JsonReaderTest, GivesBackTheMemoryOfHugeTexts) {
  const std::string big = "[{\"a\": \"" + std::string(5 << 20, 'x') + "\"}]";
  EXPECT_TRUE(reader.slice_array(arena.copy(big), rows));
  EXPECT_TRUE(reader.slice_array(arena.copy("[{\"a\": 1}]"), rows));
  EXPECT_EQ(rows.find(0, "a")->size(), (5u << 20) + 2);
  EXPECT_EQ(*rows.find(1, "a"), "1");
}

TEST_F(JsonReaderTest, UndoesEscapes) {
  std::string out;
  EXPECT_TRUE(reader.append_text(arena.copy(R"("a\"\\\/\b\u00e9\ud83d\ude00")"), out));
  EXPECT_EQ(out, "a\"\\/\bé😀");
  EXPECT_FALSE(reader.append_text(arena.copy(R"("\ud83d")"), out));
  EXPECT_FALSE(reader.append_text("\"", out));
}

RC_GTEST_PROP(JsonReaderProperty, TextSurvivesWritingAndReading, ()) {
  const auto text =
      *rc::gen::container<std::string>(rc::gen::elementOf(std::string("a\"\\\n/\x01")));
  Arena arena;
  JsonReader reader;
  std::string out;
  RC_ASSERT(reader.append_text(arena.copy(json_string(text)), out));
  RC_ASSERT(out == text);
}

RC_GTEST_PROP(JsonReaderProperty, AnyTextIsCutOrRefused, ()) {
  const auto text = *rc::gen::container<std::string>(
      rc::gen::elementOf(std::string("[[{{}}]],:\"\"\\a1 \n\xC3")));
  Arena arena;
  JsonReader reader;
  Rows rows;
  reader.slice_array(arena.copy(text), rows);
  reader.slice_object(arena.copy(text), rows);
  reader.find(arena.copy(text), std::vector<std::string>{"a", "1"});
  for (std::size_t row = 0; row < rows.size(); ++row) {
    RC_ASSERT(rows.text(row).starts_with('{') && rows.text(row).ends_with('}'));
  }
}

}  // namespace
}  // namespace relay::envelope
