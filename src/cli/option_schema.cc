#include "cli/option_schema.h"

#include <fmt/core.h>

#include <iterator>
#include <map>
#include <string_view>
#include <utility>

#include "cli/end_schema.h"
#include "cli/schema_words.h"
#include "cli/value_schema.h"
#include "config/convert.h"
#include "config/settings_fields.h"

namespace relay::cli {

namespace {

using config::Field;
using config::Node;
using schema::list;
using schema::object;
using schema::reference_to;
using schema::text;

constexpr std::string_view kDialect = "https://json-schema.org/draft/2020-12/schema";
// Control characters, and blanks at an end.
constexpr std::string_view kNotInNames = R"([\x00-\x1f\x7f]|^ | $)";

// The references of SQL and of files.
constexpr std::string_view kInSql = R"(env:[^}]*|file:/[^}]*)";
constexpr std::string_view kInFile = R"(env:[^}]*|file:/[^}]*|[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?)";

void append(Node::Array& to, Node::Array from) {
  std::move(from.begin(), from.end(), std::back_inserter(to));
}

void append(Node::Object& to, Node::Object from) {
  std::move(from.begin(), from.end(), std::back_inserter(to));
}

/// The option's schema in $defs.
Node option_of_pipeline(const Field& field) {
  return reference_to("options/properties/" + std::string(field.name));
}

/// The members of each group of the nested form, by group: {"retry": {"min": ..., "max": ...}}.
std::map<std::string_view, Node::Object> groups_of(config::FieldTable fields) {
  std::map<std::string_view, Node::Object> groups;
  for (const Field& field : fields) {
    if (field.nested.empty()) continue;
    groups[config::nested_group(field)].emplace_back(config::nested_member(field),
                                                     option_of_pipeline(field));
  }
  return groups;
}

/// What pipelines in a file and in SQL have in common.
Node common_schema(const EndSide& source, const EndSide& sink) {
  Node::Object properties;
  for (const Field& field : config::pipeline_fields()) {
    properties.emplace_back(field.name, option_of_pipeline(field));
  }
  for (auto& [group, members] : groups_of(config::pipeline_fields())) {
    properties.emplace_back(group, object({{"type", list({text("object"), text("null")})},
                                           {"properties", object(std::move(members))},
                                           {"additionalProperties", Node(false, {})}}));
  }
  append(properties, type_keys(source));
  append(properties, type_keys(sink));
  return object({{"properties", object(std::move(properties))},
                 {"allOf", list({end_condition(source), end_condition(sink)})}});
}

/// Every reference in a text of the value, however deep, is one of these. A $ that no { follows,
/// and several of them before a {, stand for themselves.
Node texts_schema(std::string_view references, std::string_view own_name) {
  const std::string pattern =
      fmt::format(R"(^([^$]|\$+(?![{{$])|\$\$+\{{|\$\{{({})\}})*$)", references);
  return object({{"pattern", text(pattern)},
                 {"items", reference_to(own_name)},
                 {"additionalProperties", reference_to(own_name)}});
}

/// A pipeline in SQL. One that reads an outbox of its database may say how long rows are kept.
Node catalog_schema(const Registry& registry, const EndSide& source, const EndSide& sink) {
  Node::Array conditions;
  for (const SourceType& type : registry.sources()) {
    if (!type.own_outboxes) continue;
    conditions.push_back(
        schema::when(reference_to(chosen_name("source", type.name)), reference_to("retention")));
  }
  append(conditions, no_reference_conditions(source));
  append(conditions, no_reference_conditions(sink));
  return object({{"type", text("object")},
                 {"$ref", text("#/$defs/common")},
                 {"allOf", list(std::move(conditions))},
                 {"unevaluatedProperties", Node(false, {})}});
}

Node pipeline_schema() {
  Node name = object({{"description", text("unique over file and database")},
                      {"type", text("string")},
                      {"not", object({{"pattern", text(kNotInNames)}})},
                      {"minLength", schema::number(1)},
                      {"maxLength", schema::number(200)}});
  constexpr Field kEnabled{.name = "enabled",
                           .type = config::FieldType::boolean,
                           .default_text = "true",
                           .meaning = "whether the pipeline runs"};
  constexpr Field kDirection{
      .name = "direction",
      .type = config::FieldType::choice,
      .meaning = "as the catalog shows it; it follows from source and sink where it is left out",
      .choices = "forward,reverse,bridge"};
  return object({{"description", text("A pipeline of a configuration file.")},
                 {"type", text("object")},
                 {"$ref", text("#/$defs/common")},
                 {"properties", object({{"name", std::move(name)},
                                        {"enabled", value_schema(kEnabled, true)},
                                        {"direction", value_schema(kDirection, true)}})},
                 {"required", list({text("name")})},
                 {"unevaluatedProperties", Node(false, {})}});
}

Node global_schema() {
  Node::Object properties;
  for (const Field& field : config::file_settings_fields()) {
    const Node value = value_schema(field, true);
    for (const std::string_view name : config::names_of(field)) {
      properties.emplace_back(name, value);
    }
  }
  return object({{"description", text("The settings of the program.")},
                 {"type", text("object")},
                 {"$ref", text("#/$defs/texts_in_file")},
                 {"properties", object(std::move(properties))},
                 {"additionalProperties", Node(false, {})}});
}

Node definitions_of(const Registry& registry) {
  const EndSide source = source_side(registry.catalogue());
  const EndSide sink = sink_side(registry.catalogue());
  Node::Object definitions{
      {"reference", object({{"type", text("string")}, {"pattern", text(kReferencePattern)}})},
      {"braces", object({{"type", text("string")}, {"pattern", text(R"(\$\{)")}})},
      {"given", schema::negation(object({{"enum", list({Node(), text("")})}}))},
      {"options", properties_of(config::pipeline_fields(), true)},
      {"retention", properties_of(config::retention_fields(), false)},
      {"common", common_schema(source, sink)},
      {"texts_in_file", texts_schema(kInFile, "texts_in_file")},
      {"texts_in_sql", texts_schema(kInSql, "texts_in_sql")},
      {"options_in_sql", catalog_schema(registry, source, sink)},
      {"config",
       object({{"description", text("The configuration that pgtrickle.set_relay takes.")},
               {"allOf", list({reference_to("options_in_sql"), reference_to("texts_in_sql")})}})},
      {"pipeline", pipeline_schema()}};
  define_ends(source, definitions);
  define_ends(sink, definitions);
  return object(std::move(definitions));
}

}  // namespace

std::string option_schema(const Registry& registry) {
  Node pipeline = schema::all_of({reference_to("pipeline"), reference_to("texts_in_file")});
  Node pipelines = object({{"type", text("array")}, {"items", std::move(pipeline)}});
  return object({{"$schema", text(kDialect)},
                 {"title", text("The configuration of pgtrickle-relay")},
                 {"type", text("object")},
                 {"properties",
                  object({{"global", global_schema()}, {"pipeline", std::move(pipelines)}})},
                 {"additionalProperties", Node(false, {})},
                 {"$defs", definitions_of(registry)}})
      .to_json();
}

}  // namespace relay::cli
