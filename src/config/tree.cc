#include "config/tree.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "core/text.h"

namespace relay::config {
namespace {

void append_json(std::string& out, const Node& node);

void append_number(std::string& out, double number) {
  if (!std::isfinite(number)) {  // TOML has these, JSON has not
    append_json_string(out, std::isnan(number) ? "nan" : number > 0 ? "inf" : "-inf");
    return;
  }
  std::string text = fmt::format("{}", number);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  out += text;
}

void append_object(std::string& out, const Node::Object& object) {
  std::vector<const std::pair<std::string, Node>*> sorted;
  sorted.reserve(object.size());
  for (const auto& member : object) sorted.push_back(&member);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto* a, const auto* b) { return a->first < b->first; });
  out += '{';
  for (const auto* member : sorted) {
    if (out.back() != '{') out += ',';
    append_json_string(out, member->first);
    out += ':';
    append_json(out, member->second);
  }
  out += '}';
}

void append_json(std::string& out, const Node& node) {
  if (const bool* boolean = node.boolean()) {
    out += *boolean ? "true" : "false";
  } else if (const std::int64_t* integer = node.integer()) {
    fmt::format_to(std::back_inserter(out), "{}", *integer);
  } else if (const double* number = node.number()) {
    append_number(out, *number);
  } else if (const std::string* text = node.text()) {
    append_json_string(out, *text);
  } else if (const Node::Array* array = node.array()) {
    out += '[';
    for (const Node& element : *array) {
      if (&element != array->data()) out += ',';
      append_json(out, element);
    }
    out += ']';
  } else if (const Node::Object* object = node.object()) {
    append_object(out, *object);
  } else {
    out += "null";
  }
}

}  // namespace

const Node* find_member(const Node::Object& object, std::string_view key) {
  for (const auto& [name, value] : object) {
    if (name == key) return &value;
  }
  return nullptr;
}

const Node* Node::find(std::string_view key) const {
  const Object* members = object();
  return members ? find_member(*members, key) : nullptr;
}

std::string Node::to_json() const {
  std::string out;
  append_json(out, *this);
  return out;
}

Error problem(std::string_view place, std::string_view code, std::string_view what,
              std::string remedy) {
  return {ErrorClass::misconfigured,
          std::string(code),
          place.empty() ? std::string(what) : fmt::format("{}: {}", place, what),
          std::move(remedy),
          {}};
}

}  // namespace relay::config
