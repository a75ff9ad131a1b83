#include "config/option_table.h"

#include <fmt/format.h>

namespace relay::config::filling {

namespace {

/// Numbers and booleans as they were written.
std::string plain_text(const Node& node) {
  if (node.text()) return *node.text();
  return node.number() ? fmt::format("{}", *node.number()) : node.to_json();
}

}  // namespace

void take(const Node& value, std::string& member) {
  member = *value.text();
}

void take(const Node& value, bool& member) {
  member = *value.boolean();
}

void take(const Node& value, double& member) {
  member = *value.number();
}

void take(const Node& value, std::chrono::milliseconds& member) {
  member = std::chrono::milliseconds(*value.integer());
}

void take(const Node& value, std::vector<std::string>& member) {
  member.clear();
  for (const Node& element : *value.array()) member.push_back(*element.text());
}

void take(const Node& value, std::map<std::string, std::string>& member) {
  member.clear();
  for (const auto& [key, node] : *value.object()) member.emplace(key, plain_text(node));
}

void take(const Node& value, std::map<std::string, Node>& member) {
  member.clear();
  for (const auto& [key, node] : *value.object()) member.emplace(key, node);
}

}  // namespace relay::config::filling
