#include "envelope/filter.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "core/arena.h"

namespace relay::envelope {
namespace {

/// "pass", "out", "?: why" or "error: message".
std::string test(std::string_view filter, std::string_view json, bool lenient = false) {
  Arena arena;
  JsonReader reader;
  Rows rows;
  if (!reader.slice_object(arena.copy(json), rows)) return "no row";
  const auto compiled = Filter::compile(filter);
  if (!compiled) return "error: " + compiled.error().message;
  std::string why;
  switch (compiled->test({&rows, 0}, reader, lenient, why)) {
    case Filter::Answer::pass:
      return "pass";
    case Filter::Answer::leave_out:
      return "out";
    case Filter::Answer::cannot_say:
      return "?: " + why;
  }
  return "";
}

constexpr const char* kRow =
    R"({"amount": 1000.5, "region": "eu", "note": null, "ok": true, "Odd name": "x'y",)"
    R"( "big": 9007199254740993, "day": "2026-04-27", "a": {"b": [1, "z"]}, "in": 3})";

TEST(FilterLanguage, HasTheComparisonsOfSql) {
  for (const char* yes : {"amount > 1000 and region in ('eu','us')",
                          "amount >= 1000.50",
                          "amount <= 1000.5",
                          "amount = 1.0005e3",
                          "amount <> 1",
                          "amount != 1",
                          "region < 'ev'",
                          "not region = 'us'",
                          "region not in ('us')",
                          "note is null",
                          "region is not null",
                          "ok",
                          "ok = true",
                          "not (ok = false)",
                          "ok > false",
                          "big = 9007199254740993",
                          "big <> 9007199254740992",
                          "day >= '2026-04-01' and day < '2026-05-01'",
                          "\"Odd name\" = 'x''y'",
                          "a.b.0 = 1",
                          "a.b.1 = 'z'",
                          "a.\"b\".7 is null",
                          "a.c is null",
                          "\"in\" = 3",
                          "1000 < amount",
                          "region like 'e_' and day like '2026%' and day like '%-04-%'",
                          "region not like '%x%'",
                          "REGION = 'x' or AMOUNT > 1 or ok",
                          "true",
                          "amount > -1",
                          "amount>1 or(ok)"}) {
    const std::string answer = test(yes, kRow);
    if (std::string_view(yes).starts_with("REGION")) {
      EXPECT_TRUE(answer.starts_with("?: the filter asks for column REGION")) << answer;
    } else {
      EXPECT_EQ(answer, "pass") << yes;
    }
  }
  for (const char* no :
       {"amount > 1000.5", "region in ('us', 'uk')", "not ok", "false", "region like 'E%'",
        "region like ''", "note is not null", "amount = 1000.50000000000000000000000000001"}) {
    EXPECT_EQ(test(no, kRow), "out") << no;
  }
}

TEST(FilterLanguage, TreatsNullAsUnknown) {
  for (const char* unknown : {"note = 'x'", "note <> 'x'", "not note = 'x'", "note in ('x')",
                              "note not in ('x')", "note like 'x'", "note not like 'x'", "note",
                              "note = 'x' and ok", "note = 'x' or not ok", "a.c = 1"}) {
    EXPECT_EQ(test(unknown, kRow), "out") << unknown;
  }
  EXPECT_EQ(test("note = 'x' or ok", kRow), "pass");
  EXPECT_EQ(test("not (note = 'x' and not ok)", kRow), "pass");
}

TEST(FilterLanguage, LikeHasPercentUnderscoreAndBackslash) {
  const auto like = [](const std::string& text, const std::string& pattern) {
    return test("t like '" + pattern + "'", R"({"t": ")" + text + "\"}") == "pass";
  };
  EXPECT_TRUE(like("abcabd", "%abd"));
  EXPECT_TRUE(like("aaab", "%a_"));
  EXPECT_TRUE(like("grüße", "gr__e"));
  EXPECT_TRUE(like("50%", "50\\%"));
  EXPECT_FALSE(like("50x", "50\\%"));
  EXPECT_TRUE(like("", "%%"));
  EXPECT_FALSE(like("", "_"));
  EXPECT_TRUE(like(std::string(5000, 'a') + "b", "%a%a%a%a%a%b"));
  EXPECT_FALSE(like(std::string(5000, 'a'), "%a%a%a%a%a%b"));
}

TEST(FilterLanguage, CannotSayWhatHasNoSense) {
  EXPECT_EQ(test("region > 5", kRow),
            "?: the filter cannot compare column region (a text) with a number");
  EXPECT_EQ(test("a = 'x'", kRow),
            "?: the filter cannot compare column a (an object or array) with a text");
  EXPECT_EQ(test("amount", kRow),
            "?: the filter cannot compare column amount (a number) with true or false");
  EXPECT_EQ(test("ok or zzz = 1", kRow),
            "?: the filter asks for column zzz, which the row does not have");
  EXPECT_EQ(test("zzz.b is null", kRow),
            "?: the filter asks for column zzz.b, which the row does not have");
}

TEST(FilterLanguage, IsLenientWithDocuments) {
  EXPECT_EQ(test("region > 5", kRow, true), "out");
  EXPECT_EQ(test("zzz is null and ok", kRow, true), "pass");
}

TEST(FilterLanguage, SaysWhereItDoesNotCompile) {
  const auto error = [](std::string_view filter) { return test(filter, "{}"); };
  EXPECT_EQ(error(""), "error: filter, character 1: there is no condition");
  EXPECT_EQ(error("é = 'x"), "error: filter, character 5: a text is opened and not closed");
  EXPECT_EQ(
      error("a = null"),
      "error: filter, character 5: nothing equals null: write \"is null\" or \"is not null\"");
  EXPECT_EQ(error("a == 1"),
            "error: filter, character 4: a column or a value is expected, not \"=\"");
  EXPECT_EQ(error("a = 1 b"), "error: filter, character 7: \"b\" is not expected here");
  EXPECT_EQ(error("(a = 1"), "error: filter, character 7: \")\" is expected, not the end");
  EXPECT_EQ(error("a in 1"), "error: filter, character 6: \"(\" is expected, not \"1\"");
  EXPECT_EQ(error("a in ()"),
            "error: filter, character 7: a column or a value is expected, not \")\"");
  EXPECT_EQ(
      error("a like 5"),
      "error: filter, character 8: a text in single quotes is expected after like, not \"5\"");
  EXPECT_EQ(error("a not = 1"),
            "error: filter, character 7: in or like is expected after not, not \"=\"");
  EXPECT_EQ(error("5 and 6"), "error: filter, character 3: a comparison is expected, not \"and\"");
  EXPECT_EQ(error("a = 5x"), "error: filter, character 5: a number runs into a word");
  EXPECT_EQ(error("a ; b"), "error: filter, character 3: this character means nothing here");
  EXPECT_EQ(error("a. = 1"),
            "error: filter, character 4: a name is expected after the point, not \"=\"");
  EXPECT_EQ(error("a is 5"), "error: filter, character 6: null is expected after is, not \"5\"");
  EXPECT_EQ(error(std::string(1000, '(')),
            "error: filter, character 102: the condition is nested too deep");
}

TEST(FilterLanguage, IsLongWhereItIsNotDeep) {
  std::string filter = "v = 0";
  for (int i = 1; i < 20000; ++i) filter += " or v = " + std::to_string(i);
  EXPECT_EQ(test(filter, R"({"v": 19999})"), "pass");
}

// A condition as text, and what it means for a row of three small columns, worked out another way.
struct Sample {
  std::string text;
  std::optional<bool> value;
};

using Row = std::vector<std::optional<int>>;

Sample sample(const Row& row, int depth);

Sample leaf(const Row& row) {
  const int column = *rc::gen::inRange(0, 3);
  const int constant = *rc::gen::inRange(-2, 3);
  const std::string name(1, static_cast<char>('a' + column));
  const auto& cell = row[static_cast<std::size_t>(column)];
  const std::string right = std::to_string(constant) + (*rc::gen::arbitrary<bool>() ? ".0" : "");
  const auto known = [&](bool value) { return cell ? std::optional(value) : std::nullopt; };
  const int value = cell.value_or(0);
  switch (*rc::gen::inRange(0, 9)) {
    case 0:
      return {name + " = " + right, known(value == constant)};
    case 1:
      return {name + " <> " + right, known(value != constant)};
    case 2:
      return {name + " < " + right, known(value < constant)};
    case 3:
      return {name + " <= " + right, known(value <= constant)};
    case 4:
      return {name + " > " + right, known(value > constant)};
    case 5:
      return {name + " >= " + right, known(value >= constant)};
    case 6:
      return {name + " is null", !cell};
    case 7:
      return {name + " is not null", cell.has_value()};
    default:
      return {name + " not in (1, " + right + ")", known(value != 1 && value != constant)};
  }
}

Sample sample(const Row& row, int depth) {
  const int kind = depth == 0 ? 0 : *rc::gen::inRange(0, 4);
  if (kind == 0) return leaf(row);
  const Sample a = sample(row, depth - 1);
  if (kind == 1) {
    return {"not (" + a.text + ")", a.value ? std::optional(!*a.value) : std::nullopt};
  }
  const Sample b = sample(row, depth - 1);
  const bool decisive = kind == 3;  // "or" is decided by true, "and" by false
  const std::string text = "(" + a.text + ") " + (decisive ? "OR" : "and") + " (" + b.text + ")";
  if (a.value == decisive || b.value == decisive) return {text, decisive};
  if (!a.value || !b.value) return {text, std::nullopt};
  return {text, !decisive};
}

RC_GTEST_PROP(FilterLanguage, MeansWhatThreeValuedLogicMeans, ()) {
  Row row;
  std::string json = "{";
  for (const char* name : {"a", "b", "c"}) {
    const int cell = *rc::gen::inRange(-3, 3);
    row.push_back(cell == -3 ? std::nullopt : std::optional(cell));
    json += (json.size() > 1 ? ", \"" : "\"") + std::string(name) +
            "\": " + (row.back() ? std::to_string(cell) : "null");
  }
  const Sample wanted = sample(row, 4);
  RC_ASSERT(test(wanted.text, json + "}") == (wanted.value == true ? "pass" : "out"));
}

RC_GTEST_PROP(FilterLanguage, CompilesOrSaysWhyWhateverTheText, ()) {
  const std::vector<std::string> words = {"a",   "b.c", "0",    "1.5", "'x'",  "\"q\"", "and", "or",
                                          "not", "in",  "like", "is",  "null", "(",     ")",   ",",
                                          "=",   "<>",  "<",    "'",   ".",    "-",     "\xC3"};
  const auto picks = *rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(words));
  std::string filter;
  for (const std::string& word : picks) filter += word + (*rc::gen::arbitrary<bool>() ? " " : "");
  test(filter, R"({"a": 1, "b": {"c": "x"}, "q": null})");
}

}  // namespace
}  // namespace relay::envelope
