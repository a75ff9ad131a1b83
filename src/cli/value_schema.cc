#include "cli/value_schema.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <string>
#include <utility>

#include "cli/schema_words.h"
#include "config/convert.h"

namespace relay::cli {

namespace {

using config::Field;
using config::FieldType;
using config::Node;
using schema::list;
using schema::number;
using schema::object;
using schema::text;
using schema::texts;

constexpr std::string_view kStart = "^(earliest|latest|snapshot|[0-9]{1,18})$";
// A number, with a unit or without one; durations may be several of them. Blanks may stand between.
// They have at most 200 characters.
constexpr std::string_view kDuration =
    R"(^(?!.{201})[ \t]*[0-9]+(\.[0-9]+)?[ \t]*$)"
    R"(|^(?!.{201})[ \t]*([0-9]+(\.[0-9]+)?[ \t]*([uUmM]?[sS]|[mMhHdD])[ \t]*)+$)";
constexpr std::string_view kBytes =
    R"(^(?!.{201})[ \t]*[0-9]+(\.[0-9]+)?[ \t]*(([kKmMgGtT][iI]?)?[bB][ \t]*)?$)";
// Larger amounts, in milliseconds or bytes, are refused.
constexpr double kLargestAmount = 9e18;
// Larger ids are refused.
constexpr std::int64_t kLargestStart = 999'999'999'999'999'999;

/// Types of JSON that a value may have. Keywords such as `pattern` and `minimum` concern values of
/// their own type only, so that one schema holds them side by side.
void set_types(Node::Object& members, std::initializer_list<std::string_view> types,
               std::string_view pattern, bool references) {
  Node::Array all;
  for (const std::string_view type : types) all.push_back(text(type));
  const bool has_text = std::ranges::find(types, "string") != types.end();
  if (!has_text && references) all.push_back(text("string"));
  all.push_back(text("null"));
  members.emplace_back("type", list(std::move(all)));
  std::string whole(pattern);
  if (references) whole += fmt::format("{}{}", whole.empty() ? "" : "|", kReferencePattern);
  if (!whole.empty()) members.emplace_back("pattern", text(whole));
}

void set_range(Node::Object& members, double least, double most) {
  members.emplace_back("minimum", number(least));
  members.emplace_back("maximum", number(most));
}

/// Fractions of a millisecond or a byte are rounded up, but for a millionth of it: what is more
/// than that above one less than the least whole amount counts as the least.
void set_amount(Node::Object& members, const Field& field, double units) {
  const double least = field.min * units;
  if (least > 0) {
    members.emplace_back("exclusiveMinimum", number((std::ceil(least) - 1 + 1e-6) / units));
  } else {
    members.emplace_back("minimum", number(0));
  }
  members.emplace_back("maximum", number(std::min(field.max, kLargestAmount / units)));
}

void set_choices(Node::Object& members, const Field& field, bool references) {
  Node choices = schema::one_of_names_or_null(config::split_names(field.choices));
  if (references) {
    members.emplace_back("anyOf", list({std::move(choices), schema::reference_to("reference")}));
  } else {
    members.push_back(std::move(choices.object()->front()));
  }
}

void set_values(Node::Object& members, const Field& field, bool references) {
  switch (field.type) {
    case FieldType::text:
      return set_types(members, {"string"}, {}, false);
    case FieldType::integer:
      set_types(members, {"integer"}, {}, references);
      return set_range(members, field.min, field.max);
    case FieldType::number:
      set_types(members, {"number"}, {}, references);
      return set_range(members, field.min, field.max);
    case FieldType::boolean:
      return set_types(members, {"boolean"}, {}, references);
    case FieldType::duration:
      set_types(members, {"number", "string"}, kDuration, references);
      return set_amount(members, field, 1e3);
    case FieldType::bytes:
      set_types(members, {"number", "string"}, kBytes, references);
      return set_amount(members, field, 1);
    case FieldType::choice:
      return set_choices(members, field, references);
    case FieldType::list:
      set_types(members, {"array", "string"}, {}, false);
      members.emplace_back("items", object({{"type", text("string")}}));
      return;
    case FieldType::map:
      set_types(members, {"object"}, {}, false);
      members.emplace_back(
          "additionalProperties",
          object({{"type", list({text("string"), text("number"), text("boolean")})}}));
      return;
    case FieldType::start:
      set_types(members, {"integer", "string"}, kStart, references);
      members.emplace_back("minimum", number(0));
      members.emplace_back("maximum", Node(kLargestStart, {}));
      return;
  }
}

/// The default as a value of its type, where JSON has that type.
Node default_value(const Field& field) {
  Node written(std::string(field.default_text), {});
  written.set_origin(Node::Origin::outside);
  const bool has_type = field.type == FieldType::integer || field.type == FieldType::number ||
                        field.type == FieldType::boolean;
  if (!has_type) return written;
  auto converted = config::convert(field, written);
  if (!converted) return written;
  const double* value = converted->number();
  return value ? number(*value) : std::move(*converted);
}

}  // namespace

Node value_schema(const Field& field, bool references) {
  Node::Object members;
  set_values(members, field, references);
  if (!field.meaning.empty()) members.emplace_back("description", text(field.meaning));
  if (!field.default_text.empty()) members.emplace_back("default", default_value(field));
  if (field.secret) members.emplace_back("writeOnly", Node(true, {}));
  return object(std::move(members));
}

Node properties_of(config::FieldTable fields, bool references) {
  Node::Object properties;
  for (const Field& field : fields) {
    properties.emplace_back(field.name, value_schema(field, references));
  }
  return object({{"properties", object(std::move(properties))}});
}

}  // namespace relay::cli
