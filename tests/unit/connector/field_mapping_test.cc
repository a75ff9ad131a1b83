#include "connector/field_mapping.h"

#include <gtest/gtest.h>

#include "config/tree.h"

namespace relay {
namespace {

constexpr auto kTable = with_mapping_fields(std::array{config::Field{.name = "url"}});

Result<FieldMapping> mapping_of(const std::string& json) {
  const auto node = config::parse_json(json, "pipeline p");
  EXPECT_TRUE(node) << json;
  const auto checked = config::check(*node->object(), kTable, "pipeline p, source");
  EXPECT_TRUE(checked.problems.empty()) << json;
  return FieldMapping::make(checked.values);
}

const MappedMessage& message() {
  static const MappedMessage kMessage{
      .subject = "orders.eu",
      .key = "k-1",
      .payload =
          R"( {"id": "e\u00e9", "n": 12345678901234567890123, "a/b": {"~": [10, {"x": true}]},
                     "none": null, "empty": "", "o": {"p": 1}} )",
      .header = [](std::string_view name) -> std::optional<std::string> {
        if (name == "event-type") return "created";
        if (name == "blank") return "";
        return std::nullopt;
      }};
  return kMessage;
}

std::optional<std::string> id_by(const std::string& expression) {
  const auto mapping =
      mapping_of(config::Node(config::Node::Object{{"id_from", {expression, ""}}}, "").to_json());
  EXPECT_TRUE(mapping) << expression;
  return mapping ? mapping->id(message()) : std::nullopt;
}

std::string problem_of(const std::string& expression) {
  const auto mapping =
      mapping_of(config::Node(config::Node::Object{{"id_from", {expression, ""}}}, "").to_json());
  return mapping ? "none" : mapping.error().message;
}

TEST(FieldMapping, WhatIsNotConfiguredIsLeftToTheSource) {
  const auto mapping = mapping_of("{}");
  ASSERT_TRUE(mapping);
  EXPECT_EQ(mapping->id(message()), std::nullopt);
  EXPECT_EQ(mapping->event_type(message()), std::nullopt);
  EXPECT_EQ(mapping->aggregate_id(message()), std::nullopt);
  EXPECT_EQ(mapping->trace_id(message()), std::nullopt);
}

TEST(FieldMapping, EachOptionGivesItsOwnField) {
  const auto mapping = mapping_of(R"({"id_from":"json:/id","event_type_from":"header:event-type",
      "aggregate_id_from":"key","trace_id_from":"subject"})");
  ASSERT_TRUE(mapping);
  EXPECT_EQ(mapping->id(message()), "e\u00e9");
  EXPECT_EQ(mapping->event_type(message()), "created");
  EXPECT_EQ(mapping->aggregate_id(message()), "k-1");
  EXPECT_EQ(mapping->trace_id(message()), "orders.eu");
}

TEST(FieldMapping, APointerLeadsAnywhereInThePayload) {
  EXPECT_EQ(id_by("json:/n"), "12345678901234567890123");
  EXPECT_EQ(id_by("json:/a~1b/~0/0"), "10");
  EXPECT_EQ(id_by("json:/a~1b/~0/1/x"), "true");
  EXPECT_EQ(id_by("json:/o"), R"({"p": 1})");
}

TEST(FieldMapping, WhatTheMessageLacksIsLeftToTheSource) {
  for (const char* expression :
       {"json:/missing", "json:/none", "json:/empty", "json:/id/deeper", "json:/a~1b/~0/7",
        "header:missing", "header:blank", "template:x-{header:missing}"}) {
    EXPECT_EQ(id_by(expression), std::nullopt) << expression;
  }
}

TEST(FieldMapping, APayloadThatIsNoJsonHasNothingToPointAt) {
  const auto mapping = mapping_of(R"({"id_from":"json:/id"})");
  ASSERT_TRUE(mapping);
  for (const char* payload : {"", "  ", "text", "{\"id\"", "\xff\xfe", "[1,2]", "\"id\""}) {
    EXPECT_EQ(mapping->id({.subject = {}, .key = {}, .payload = payload, .header = {}}),
              std::nullopt)
        << payload;
  }
}

TEST(FieldMapping, ATemplateJoinsWhatItNames) {
  EXPECT_EQ(id_by("template:{subject}/{ key }:{header:event-type}#{json:/n}"),
            "orders.eu/k-1:created#12345678901234567890123");
  EXPECT_EQ(id_by(R"(template:\{{key}\}\\)"), R"({k-1}\)");
  EXPECT_EQ(id_by("template:constant"), "constant");
}

TEST(FieldMapping, WhatIsNoExpressionIsRefused) {
  EXPECT_EQ(problem_of("body"), "id_from: 'body' is not known");
  EXPECT_EQ(problem_of("header:"), "id_from: header: without a name behind it");
  EXPECT_EQ(problem_of("json:id"),
            "id_from: 'json:id' is no JSON pointer; one begins with a slash");
  EXPECT_EQ(problem_of("json:/a~2"),
            "id_from: 'json:/a~2' is no JSON pointer; one begins with a slash");
  EXPECT_EQ(problem_of("template:"), "id_from: the template is empty");
  EXPECT_EQ(problem_of("template:{key"), "id_from: a brace is opened and not closed");
  EXPECT_EQ(problem_of("template:key}"), "id_from: a brace is closed that was not opened");
  EXPECT_EQ(problem_of("template:{op}"), "id_from: 'op' is not known");
}

}  // namespace
}  // namespace relay
