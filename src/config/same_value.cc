#include "config/same_value.h"

#include <algorithm>

namespace relay::config {

bool same_value(const Node& one, const Node& other) {
  if (one.array() && other.array()) {
    return std::ranges::equal(*one.array(), *other.array(), same_value);
  }
  if (one.object() && other.object()) {
    return one.object()->size() == other.object()->size() &&
           std::ranges::all_of(*one.object(), [&](const auto& member) {
             const Node* same = other.find(member.first);
             return same && same_value(member.second, *same);
           });
  }
  if (one.number() && other.integer()) {
    return *one.number() == static_cast<double>(*other.integer());
  }
  if (one.integer() && other.number()) return same_value(other, one);
  return one.to_json() == other.to_json();
}

}  // namespace relay::config
