#include "envelope/template.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>

#include "core/arena.h"

namespace relay::envelope {
namespace {

struct Renderer {
  explicit Renderer(std::string_view json) {
    readable = reader.slice_object(arena.copy(json), rows);
    variables.set(Variable::stream_table, "orders");
    variables.set(Variable::op, "insert");
    variables.set(Variable::outbox_id, "42");
    variables.set(Variable::schema, "shop");
  }
  std::string operator()(std::string_view text) {
    const auto compiled = Template::compile(text, "subject_template");
    if (!compiled) return "error: " + compiled.error().message;
    std::string out;
    const ColumnPath* absent = compiled->render(out, variables, {&rows, 0}, reader, nullptr);
    return absent != nullptr ? "absent: " + absent->to_string() : out;
  }

  Arena arena;
  JsonReader reader;
  Rows rows;
  Variables variables;
  bool readable = false;
};

TEST(Template, PutsVariablesAndColumnsIn) {
  Renderer render(R"({"region": "eu", "n": 1.50, "ok": true, "gone": null, "tags": ["a", 2]})");
  EXPECT_EQ(render("pgtrickle.{stream_table}.{op}"), "pgtrickle.orders.insert");
  EXPECT_EQ(render("{schema}.{stream_table}"), "shop.orders");
  EXPECT_EQ(render("{ outbox_id }/{{region}}/{{ n }}/{{ok}}"), "42/eu/1.50/true");
  EXPECT_EQ(render("{{ gone }}.{refresh_id}"), "_null._null");
  EXPECT_EQ(render("{{ tags }}"), R"(["a", 2])");
  EXPECT_EQ(render(""), "");
}

TEST(Template, LooksIntoJson) {
  Renderer render(
      R"({"a": {"b": {"c": "x\n\u00e9"}, "q\"q": 1}, "items": [{"sku": "s1"}], "o.d": "dot"})");
  EXPECT_EQ(render("{{ a.b.c }}"), "x\né");
  EXPECT_EQ(render("{{ items.0.sku }}"), "s1");
  EXPECT_EQ(render("{{ items.1.sku }}{{ items.x }}{{ a.b.c.d }}{{ a.zz }}"),
            "_null_null_null_null");
  EXPECT_EQ(render(R"({{ "o.d" }})"), "dot");
  EXPECT_EQ(render(R"({{ a."q""q" }})"), "1");
}

TEST(Template, NamesTheColumnThatIsNotThere) {
  Renderer render(R"({"a": 1})");
  EXPECT_EQ(render("{{ b.c }}"), "absent: b.c");
  EXPECT_EQ(render(R"({{ "x.y" }})"), R"(absent: "x.y")");
}

TEST(Template, TakesEscapedBracesAsTheyAre) {
  Renderer render("{}");
  EXPECT_EQ(render(R"(\{op\} \\ a\b)"), R"({op} \ a\b)");
}

TEST(Template, SaysWhereItDoesNotCompile) {
  Renderer render("{}");
  EXPECT_EQ(render("é{stream_tabel}"),
            "error: subject_template, character 2: unknown variable {stream_tabel}; did you mean "
            "{stream_table}?");
  EXPECT_EQ(render("{schem}"),
            "error: subject_template, character 1: unknown variable {schem}; did you mean "
            "{schema}?");
  EXPECT_EQ(render("{zzzzz}"), "error: subject_template, character 1: unknown variable {zzzzz}");
  EXPECT_EQ(render("ab{op"),
            "error: subject_template, character 3: a brace is opened and not closed");
  EXPECT_EQ(
      render("{{ a }"),
      "error: subject_template, character 1: a column is opened with {{ and not closed with }}");
  EXPECT_EQ(render("a}"),
            "error: subject_template, character 2: a brace is closed that was not opened");
  EXPECT_EQ(render("{{ a..b }}"), "error: subject_template, character 1: {{a..b}} names no column");
}

TEST(Template, KnowsWhatItDependsOn) {
  const auto compiled = [](std::string_view text) { return *Template::compile(text, "t"); };
  EXPECT_FALSE(compiled("a.{schema}.{stream_table}").varies());
  EXPECT_TRUE(compiled("{outbox_id}").varies());
  EXPECT_FALSE(compiled("{outbox_id}").varies_by_row());
  EXPECT_TRUE(compiled("{key}").varies_by_row());
  EXPECT_TRUE(compiled("{{ a }}").varies_by_row());
  EXPECT_TRUE(compiled("{event_type}").varies_by_op());
}

RC_GTEST_PROP(Template, CompilesOrSaysWhyWhateverTheText, ()) {
  const auto text = *rc::gen::container<std::string>(
      rc::gen::elementOf(std::string("{{{}}}\\ \".ab_op\xC3\xA9")));
  Renderer render(R"({"a": "x", "b": {"a": 1}})");
  RC_ASSERT(render.readable);
  render(text);
}

RC_GTEST_PROP(Template, EscapedTextRendersAsItself, (const std::string& text)) {
  std::string escaped;
  for (const char c : text) {
    if (c == '{' || c == '}' || c == '\\') escaped.push_back('\\');
    escaped.push_back(c);
  }
  RC_ASSERT(Renderer("{}")(escaped) == text);
}

}  // namespace
}  // namespace relay::envelope
