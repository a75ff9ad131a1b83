#include <fmt/core.h>
#include <toml++/toml.h>

#include <algorithm>
#include <sstream>

#include "config/tree.h"

namespace relay::config {
namespace {

std::string place_of(std::string_view file, const toml::source_position& at) {
  return fmt::format("{}:{}:{}", file, at.line, at.column);
}

Node read(const toml::node& node, std::string_view file);

// toml++ keeps keys sorted by name; here they keep the order of the file.
Node::Object read_table(const toml::table& table, std::string_view file) {
  struct Member {
    const toml::key* key;
    const toml::node* value;
  };
  std::vector<Member> members;
  for (const auto& [key, value] : table) members.push_back({&key, &value});
  std::stable_sort(members.begin(), members.end(), [](const Member& a, const Member& b) {
    return a.key->source().begin < b.key->source().begin;
  });
  Node::Object object;
  for (const Member& member : members) {
    object.emplace_back(std::string(member.key->str()), read(*member.value, file));
  }
  return object;
}

std::string written(const toml::node& node) {
  std::ostringstream out;
  node.visit([&](const auto& value) { out << value; });
  return out.str();
}

Node read(const toml::node& node, std::string_view file) {
  const std::string place = place_of(file, node.source().begin);
  switch (node.type()) {
    case toml::node_type::table:
      return Node(read_table(*node.as_table(), file), place);
    case toml::node_type::array: {
      Node::Array array;
      for (const toml::node& element : *node.as_array()) array.push_back(read(element, file));
      return Node(std::move(array), place);
    }
    case toml::node_type::string:
      return Node(node.as_string()->get(), place);
    case toml::node_type::integer:
      return Node(node.as_integer()->get(), place);
    case toml::node_type::floating_point:
      return Node(node.as_floating_point()->get(), place);
    case toml::node_type::boolean:
      return Node(node.as_boolean()->get(), place);
    default:  // dates and times
      return Node(written(node), place);
  }
}

// The parser's messages quote at most the character that it did not expect, except here.
std::string what_is_wrong(std::string_view description) {
  if (description.find("representable") != std::string_view::npos) {
    return "an integer does not fit into 64 bits";
  }
  return std::string(description);
}

}  // namespace

Result<Node> parse_toml(std::string_view text, std::string_view file) {
  try {
    const toml::table table = toml::parse(text, file);
    return Node(read_table(table, file), fmt::format("{}:1:1", file));
  } catch (const toml::parse_error& error) {
    return fail(problem(place_of(file, error.source().begin), "not_toml",
                        what_is_wrong(error.description()),
                        "Correct the file; nothing of it was taken."));
  }
}

}  // namespace relay::config
