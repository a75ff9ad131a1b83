#include "backends/redis/columns.h"

#include <fmt/core.h>
#include <simdjson.h>

#include <optional>

#include "core/text.h"

namespace relay::redis {

namespace {

namespace ondemand = simdjson::ondemand;
using Columns = std::vector<std::pair<std::string, std::string>>;

Error no_object(std::string_view why) {
  return {ErrorClass::rejected,
          "no_columns",
          fmt::format("the body cannot become one field a column: {}", why),
          "field_mode = columns needs JSON objects: use field_mode = payload",
          {}};
}

Error is_delta() {
  return {ErrorClass::misconfigured,
          "delta_has_no_columns",
          "field_mode = columns cannot hold a delta, which is many rows",
          "set \"message\": \"row\", or field_mode = payload",
          {}};
}

void add_columns(ondemand::object object, Columns& out) {
  for (ondemand::field field : object) {
    const std::string_view name = field.unescaped_key();
    ondemand::value value = field.value();
    switch (value.type()) {
      case ondemand::json_type::null:
        if (value.is_null()) break;
        throw simdjson::simdjson_error(simdjson::TAPE_ERROR);
      case ondemand::json_type::string:
        out.emplace_back(name, std::string_view(value.get_string()));
        break;
      case ondemand::json_type::array:
      case ondemand::json_type::object:
        out.emplace_back(name, std::string_view(simdjson::to_json_string(value)));
        break;
      default:
        out.emplace_back(name, trimmed(value.raw_json_token()));
    }
  }
}

/// The member of that name; null: there is none. Throws where the JSON is broken: the object is of
/// no use any more then.
std::optional<ondemand::value> member(ondemand::object& object, std::string_view name) {
  auto found = object[name];
  if (found.error() == simdjson::NO_SUCH_FIELD) return std::nullopt;
  return found.value();
}

/// Where the columns are in a message of the relay's own: the member of that name.
std::string_view holder_of(ondemand::object object) {
  if (!member(object, "stream_table")) return {};
  if (member(object, "delta")) return "delta";
  if (!member(object, "op")) return {};
  for (const std::string_view name : {"new", "old"}) {
    auto row = member(object, name);
    if (row && row->type() == ondemand::json_type::object) return name;
  }
  return {};
}

}  // namespace

Result<void> read_columns(std::string_view body, Columns& out) {
  try {
    ondemand::parser parser;
    const simdjson::padded_string padded(body);
    ondemand::document document = parser.iterate(padded);
    if (document.type() != ondemand::json_type::object) return fail(no_object("it is no object"));
    const std::string_view holder = holder_of(document.get_object());
    if (holder == "delta") return fail(is_delta());
    document = parser.iterate(padded);
    ondemand::object object = document.get_object();
    if (holder.empty()) {
      add_columns(object, out);
    } else {
      add_columns(object[holder].get_object(), out);
    }
    return {};
  } catch (const simdjson::simdjson_error& error) {
    return fail(no_object(error.what()));
  }
}

}  // namespace relay::redis
