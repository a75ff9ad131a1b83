#include "config/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "config/convert.h"
#include "config/same_value.h"
#include "core/characters.h"
#include "core/text.h"

namespace relay::config {
namespace {

Error two_values(std::string_view key, const Node& node, std::string_view other_key,
                 const Node& other) {
  return problem(node.place(), "conflict",
                 fmt::format("\"{}\" says something else than \"{}\" ({}); both mean the same", key,
                             other_key, other.place()),
                 "Give one of them.");
}

bool is_empty_text(const Node& node) {
  return node.text() && node.text()->empty();
}

/// Exactly one option of each mark must be given. `is_given` tells that of a field.
template <class IsGiven>
void check_marks(FieldTable table, std::string_view place, const IsGiven& is_given,
                 std::vector<Error>& problems) {
  std::string_view done;
  for (const Field& field : table) {
    if (field.one_of.empty() || field.one_of == done) continue;
    done = field.one_of;
    std::vector<std::string_view> names;
    std::vector<std::string_view> given;
    for (const Field& other : table) {
      if (other.one_of != done) continue;
      names.push_back(other.name);
      if (is_given(other)) given.push_back(other.name);
    }
    if (given.size() == 1) continue;
    problems.push_back(given.empty()
                           ? problem(place, "missing_option",
                                     fmt::format("none of {} is set", fmt::join(names, ", ")),
                                     fmt::format("Set one of them: {}.", field.meaning))
                           : problem(place, "conflict",
                                     fmt::format("{} are both set", fmt::join(given, " and ")),
                                     "Give one of them."));
  }
}

Error missing(const Field& field, std::string_view place) {
  return problem(place, "missing_option", fmt::format("\"{}\" is missing", field.name),
                 field.meaning.empty() ? std::string() : fmt::format("Set it: {}.", field.meaning));
}

}  // namespace

const Field* find_field(FieldTable table, std::string_view name) {
  const auto found = std::ranges::find(table, name, &Field::name);
  return found == table.end() ? nullptr : &*found;
}

const Field* find_by_any_name(FieldTable table, std::string_view name) {
  const auto found = std::ranges::find_if(table, [&](const Field& field) {
    const auto names = names_of(field);
    return std::ranges::find(names, name) != names.end();
  });
  return found == table.end() ? nullptr : &*found;
}

Error unknown_option(std::string_view key, const Node& node, FieldTable table,
                     std::string_view prefix) {
  std::vector<std::string> names;
  std::vector<std::string> all_names;
  for (const Field& field : table) {
    for (const std::string_view name : names_of(field)) {
      const bool is_plain = field.plain && name == field.name;
      all_names.push_back(fmt::format("{}{}", is_plain ? "" : prefix, name));
      if (name == field.name) names.push_back(all_names.back());
    }
  }
  const std::vector<std::string_view> candidates(all_names.begin(), all_names.end());
  const std::string written = fmt::format("{}{}", prefix, key);
  std::string remedy;
  if (const std::string_view near = nearest(written, candidates); !near.empty()) {
    remedy = fmt::format("Did you mean \"{}\"? ", near);
  }
  remedy += names.empty() ? "There are no options here."
                          : fmt::format("Known here: {}.", fmt::join(names, ", "));
  return problem(node.place(), "unknown_option",
                 fmt::format("there is no option {}", json_string(first_characters(written, 64))),
                 std::move(remedy));
}

std::vector<std::string_view> names_of(const Field& field) {
  std::vector<std::string_view> names = split_names(field.aliases);
  names.insert(names.begin(), field.name);
  return names;
}

std::string_view nested_group(const Field& field) {
  return field.nested.substr(0, field.nested.find('.'));
}

std::string_view nested_member(const Field& field) {
  return field.nested.substr(std::min(nested_group(field).size() + 1, field.nested.size()));
}

std::string_view name_of(FieldType type) {
  switch (type) {
    case FieldType::text:
      return "text";
    case FieldType::integer:
      return "integer";
    case FieldType::number:
      return "number";
    case FieldType::boolean:
      return "boolean";
    case FieldType::duration:
      return "duration";
    case FieldType::bytes:
      return "bytes";
    case FieldType::choice:
      return "choice";
    case FieldType::list:
      return "list";
    case FieldType::map:
      return "map";
    case FieldType::start:
      return "start";
  }
  return "text";
}

Checked check(const Node::Object& object, FieldTable table, std::string_view place) {
  Checked checked;
  checked.values.bind(table);
  struct Given {
    std::string_view key;
    const Node* node;
  };
  std::map<const Field*, Given> given;
  for (const auto& [key, node] : object) {
    const Field* field = find_by_any_name(table, key);
    if (!field) {
      checked.problems.push_back(unknown_option(key, node, table));
      continue;
    }
    if (node.is_null()) continue;
    const auto [known, is_new] = given.try_emplace(field, Given{key, &node});
    if (!is_new) {
      if (!same_value(*known->second.node, node)) {
        checked.problems.push_back(two_values(key, node, known->second.key, *known->second.node));
      }
      continue;
    }
    const auto converted = convert(*field, node);
    if (!converted) {
      checked.problems.push_back(converted.error());
    } else {
      checked.values.set(*field, node);
    }
  }
  const auto is_given = [&](const Field& field) {
    const auto found = given.find(&field);
    return found != given.end() && !is_empty_text(*found->second.node);
  };
  for (const Field& field : table) {
    if (!field.required || is_given(field)) continue;
    const auto empty = given.find(&field);
    checked.problems.push_back(
        missing(field, empty == given.end() ? place : empty->second.node->place()));
  }
  check_marks(table, place, is_given, checked.problems);
  return checked;
}

void Values::set(const Field& field, Node node) {
  auto converted = convert(field, node);
  assert(converted.has_value());
  if (!converted) return;
  converted->set_place(node.place());
  nodes_.insert_or_assign(std::string(field.name), std::move(*converted));
}

const Field& Values::field(std::string_view name) const {
  if (const Field* found = find_field(table_, name)) return *found;
  assert(false && "the table has no option of this name");
  static constexpr Field kNone{};
  return kNone;
}

const Node* Values::find(std::string_view name) const {
  const auto found = nodes_.find(name);
  return found == nodes_.end() ? nullptr : &found->second;
}

Node Values::value(const Field& field) const {
  if (const Node* node = find(field.name)) return *node;
  if (field.default_text.empty()) return {};
  Node node(std::string(field.default_text), {});
  node.set_origin(Node::Origin::outside);
  const auto converted = convert(field, node);
  assert(converted.has_value());
  return converted ? *converted : Node();
}

bool Values::has(std::string_view name) const {
  return find(field(name).name) != nullptr;
}

std::string Values::text(std::string_view name) const {
  const Node node = value(field(name));
  return node.text() ? *node.text() : std::string();
}

std::string Values::place(std::string_view name) const {
  const Node* node = find(name);
  return node ? node->place() : std::string();
}

}  // namespace relay::config
