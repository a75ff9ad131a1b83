#include "config/redaction.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "config/tree.h"
#include "core/secrets.h"
#include "core/text.h"

namespace relay::config {
namespace {

// Names, keys and ids are not masked: they are arguments of commands, and must be shown exactly.
constexpr std::array<std::string_view, 7> kMaskedColumns{
    "subject", "headers", "config", "error", "last_error", "error_message", "remedy"};

bool is_masked(std::string_view column) {
  return std::find(kMaskedColumns.begin(), kMaskedColumns.end(), column) != kMaskedColumns.end();
}

std::string redacted_text(std::string_view name, const std::string& text) {
  const bool secret = secrets::is_secret_name(name) || secrets::is_secret_header(name);
  const bool literal = text.find("${") == std::string::npos;
  return secret && literal && !text.empty() ? std::string(secrets::kMask) : secrets::masked(text);
}

/// Appends a value; `inside` a column that is masked, texts are shown without secrets.
void append_redacted(std::string& out, std::string_view name, const Node& node, bool inside) {
  if (const std::string* text = node.text()) {
    append_json_string(out, inside ? redacted_text(name, *text) : *text);
  } else if (const Node::Array* array = node.array()) {
    out += '[';
    for (const Node& element : *array) {
      if (&element != array->data()) out += ',';
      append_redacted(out, name, element, inside);
    }
    out += ']';
  } else if (const Node::Object* object = node.object()) {
    out += '{';
    for (const auto& member : *object) {
      if (&member != object->data()) out += ',';
      append_json_string(out, member.first);
      out += ':';
      append_redacted(out, member.first, member.second, inside || is_masked(member.first));
    }
    out += '}';
  } else {
    out += node.to_json();
  }
}

std::string redacted_json(std::string_view json, bool inside) {
  const auto node = parse_json(json, "");
  if (!node) return secrets::masked(json);
  std::string out;
  append_redacted(out, "", *node, inside);
  return out;
}

}  // namespace

std::string redacted_column(std::string_view column, std::string_view text) {
  if (!is_masked(column)) return std::string(text);
  return text.starts_with('{') ? redacted_json(text, true) : secrets::masked(text);
}

std::string redacted_rows(std::string_view json) {
  return redacted_json(json, false);
}

}  // namespace relay::config
