#include "stream_program/overrides.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>

#include "core/text.h"

namespace relay::stream_program {

namespace {

using config::Node;

constexpr std::string_view kPrefix = "POSTGRES_STREAM__";

/// A value of the environment holds no references.
std::string escaped(std::string_view value) {
  std::string out;
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (value.substr(i).starts_with("${")) out += '$';
    out += value[i];
  }
  return out;
}

/// The member or element that a part of the name stands for; null: there can be none.
Node* step(Node& parent, const std::string& part) {
  if (Node::Array* list = parent.array()) {
    std::size_t number = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), number);
    const bool is_number = error == std::errc() && end == part.data() + part.size();
    return is_number && number < list->size() ? &(*list)[number] : nullptr;
  }
  if (parent.is_null()) parent = Node(Node::Object(), parent.place());
  Node::Object* object = parent.object();
  if (!object) return nullptr;
  const auto known = std::ranges::find_if(
      *object, [&](const auto& member) { return equal_ignoring_case(member.first, part); });
  if (known != object->end()) return &known->second;
  return &object->emplace_back(part, Node()).second;
}

void set(Node& root, const std::string& name, const std::string& value,
         std::vector<Error>& problems) {
  Node* node = &root;
  std::string path = lower_case(std::string_view(name).substr(kPrefix.size()));
  while (node != nullptr && !path.empty()) {
    const auto end = std::min(path.find("__"), path.size());
    node = step(*node, path.substr(0, end));
    path.erase(0, end == path.size() ? end : end + 2);
    if (node != nullptr && node->place().empty()) node->set_place(name);
  }
  if (node == nullptr || node == &root) {
    problems.push_back(config::problem(
        name, "unknown_option", "the configuration has no such place",
        "Name the keys on the way to the value, as in POSTGRES_STREAM__STREAM__ID."));
    return;
  }
  *node = Node(escaped(value), name);
  node->set_origin(Node::Origin::outside);
}

}  // namespace

Overrides overrides_of(const char* const* environment) {
  Overrides found;
  for (; *environment != nullptr; ++environment) {
    const std::string_view entry(*environment);
    const auto equals = entry.find('=');
    if (!entry.starts_with(kPrefix) || equals == entry.npos) continue;
    found.emplace(entry.substr(0, equals), entry.substr(equals + 1));
  }
  return found;
}

void override_values(Node& root, const Overrides& overrides, std::vector<Error>& problems) {
  for (const auto& [name, value] : overrides) set(root, name, value, problems);
}

}  // namespace relay::stream_program
