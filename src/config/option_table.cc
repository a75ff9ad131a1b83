#include "config/option_table.h"

namespace relay::config::filling {

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
  for (const auto& [key, text] : *value.object()) member.emplace(key, *text.text());
}

}  // namespace relay::config::filling
