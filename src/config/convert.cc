#include "config/convert.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <optional>

#include "core/text.h"

namespace relay::config {
namespace {

std::string_view kind_of(const Node& node) {
  if (node.boolean()) return "a boolean";
  if (node.integer() || node.number()) return "a number";
  if (node.text()) return "a text";
  if (node.array()) return "a list";
  if (node.object()) return "an object";
  return "null";
}

// The value as a message may quote it: no secret, no resolved reference, nothing that looks like a
// URL (it may hold a password), nothing long.
std::string shown(const Field& field, const Node& node) {
  if (field.secret || node.origin() == Node::Origin::reference) return std::string(kind_of(node));
  if (const std::string* text = node.text()) {
    if (text->size() > 40 || text->find("://") != std::string::npos) return "a text";
    return json_string(*text);
  }
  if (node.boolean() || node.integer() || node.number()) return node.to_json();
  return std::string(kind_of(node));
}

std::string quantity(const Field& field, double value) {
  if (field.type != FieldType::duration) return fmt::format("{}", value);
  return value != 0 && value < 1 ? fmt::format("{}ms", value * 1000) : fmt::format("{}s", value);
}

std::string range_of(const Field& field) {
  if (field.max < 1e18) {
    return fmt::format(" from {} to {}", quantity(field, field.min), quantity(field, field.max));
  }
  if (field.min > 0) return fmt::format(" of at least {}", quantity(field, field.min));
  if (field.min == 0) return " that is not negative";
  return {};
}

std::string expected(const Field& field) {
  switch (field.type) {
    case FieldType::text:
      return "a text";
    case FieldType::integer:
      return "a whole number" + range_of(field);
    case FieldType::number:
      return "a number" + range_of(field);
    case FieldType::boolean:
      return "true or false";
    case FieldType::duration:
      return fmt::format(
          "a duration{} (such as \"500ms\", \"10s\", \"5m\", or a number of seconds)",
          range_of(field));
    case FieldType::bytes:
      return fmt::format("a size{} (such as \"256KB\", \"8MiB\", or a number of bytes)",
                         range_of(field));
    case FieldType::choice:
      return fmt::format("one of {}", fmt::join(split_names(field.choices), ", "));
    case FieldType::list:
      return "a list of texts";
    case FieldType::map:
      return "an object of texts";
    case FieldType::start:
      return "earliest, latest, snapshot, or the id to begin with";
  }
  return {};
}

Error wrong_value(const Field& field, const Node& node, std::string_view code) {
  std::string remedy;
  if (field.type == FieldType::choice && node.text() && node.origin() != Node::Origin::reference) {
    const auto choices = split_names(field.choices);
    const std::string_view near = nearest(*node.text(), choices);
    if (!near.empty()) remedy = fmt::format("Did you mean \"{}\"?", near);
  } else if (field.type == FieldType::text && !node.text()) {
    remedy = "Put it into quotes.";
    if (node.array() || node.object()) remedy.clear();
  }
  return problem(
      node.place(), code,
      fmt::format("{} is {}; it must be {}", field.name, shown(field, node), expected(field)),
      std::move(remedy));
}

// A text that does not come from a typed file may be a number or a boolean.
bool is_untyped_text(const Node& node) {
  return node.text() && node.origin() != Node::Origin::written;
}

constexpr double kIntegersEnd = 9223372036854775808.0;  // 2^63

std::optional<std::int64_t> whole_number(const Node& node) {
  if (node.integer()) return *node.integer();
  if (const double* number = node.number()) {
    if (std::trunc(*number) == *number && std::abs(*number) < kIntegersEnd) {
      return static_cast<std::int64_t>(*number);
    }
  } else if (is_untyped_text(node)) {
    std::int64_t value = 0;
    const std::string& text = *node.text();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && !text.empty() && end == text.data() + text.size()) return value;
  }
  return std::nullopt;
}

std::optional<double> any_number(const Node& node) {
  if (node.integer()) return static_cast<double>(*node.integer());
  if (node.number())
    return std::isfinite(*node.number()) ? node.number()[0] : std::optional<double>();
  if (!is_untyped_text(node)) return std::nullopt;
  double value = 0;
  const std::string& text = *node.text();
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && !text.empty() && end == text.data() + text.size();
  if (!whole || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<bool> truth(const Node& node) {
  if (node.boolean()) return *node.boolean();
  if (!is_untyped_text(node)) return std::nullopt;
  if (*node.text() == "true") return true;
  if (*node.text() == "false") return false;
  return std::nullopt;
}

// Milliseconds, or bytes.
std::optional<std::int64_t> amount(const Field& field, const Node& node) {
  std::string text;
  if (node.text()) {
    text = *node.text();
  } else if (node.integer()) {
    text = fmt::format("{}", *node.integer());
  } else if (node.number() && std::isfinite(*node.number())) {
    text = fmt::format("{:.15f}", *node.number());
  }
  if (field.type == FieldType::duration) {
    const auto parsed = parse_duration(text);
    return parsed ? std::optional(parsed->count()) : std::nullopt;
  }
  const auto parsed = parse_bytes(text);
  return parsed ? std::optional(*parsed) : std::nullopt;
}

bool is_plain(const Node& node) {
  return node.text() || node.boolean() || node.integer() || node.number();
}

template <class Value>
Result<Node> in_range(const Field& field, const Node& node, std::optional<Value> value,
                      double scale) {
  if (!value) return fail(wrong_value(field, node, "wrong_type"));
  const double plain = static_cast<double>(*value) / scale;
  if (plain < field.min || plain > field.max) {
    return fail(wrong_value(field, node, "out_of_range"));
  }
  return Node(*value, node.place());
}

Result<Node> to_choice(const Field& field, const Node& node) {
  if (!node.text()) return fail(wrong_value(field, node, "wrong_type"));
  for (const std::string_view choice : split_names(field.choices)) {
    if (*node.text() == choice) return node;
  }
  return fail(wrong_value(field, node, "not_allowed"));
}

// A reference that could not be resolved was reported then.
bool is_unresolved(const Node& node) {
  return node.is_null() && node.origin() == Node::Origin::reference;
}

Result<Node> to_list(const Field& field, const Node& node) {
  Node::Array list;
  if (node.text()) {
    list.push_back(node);
  } else if (node.array()) {
    for (const Node& element : *node.array()) {
      if (is_unresolved(element)) continue;
      if (!element.text()) return fail(wrong_value(field, node, "wrong_type"));
      list.emplace_back(*element.text(), element.place());
    }
  } else {
    return fail(wrong_value(field, node, "wrong_type"));
  }
  return Node(std::move(list), node.place());
}

Result<Node> to_map(const Field& field, const Node& node) {
  if (!node.object()) return fail(wrong_value(field, node, "wrong_type"));
  Node::Object map;
  for (const auto& [key, value] : *node.object()) {
    if (is_unresolved(value)) continue;
    if (!is_plain(value)) return fail(wrong_value(field, node, "wrong_type"));
    map.emplace_back(key, value);
  }
  return Node(std::move(map), node.place());
}

// An id has at most 18 digits.
constexpr std::int64_t kLargestStart = 999'999'999'999'999'999;

Result<Node> to_start(const Field& field, const Node& node) {
  const std::string* text = node.text();
  if (const auto id = text ? std::nullopt : whole_number(node)) {
    if (*id < 0 || *id > kLargestStart) return fail(wrong_value(field, node, "not_allowed"));
    return Node(fmt::format("{}", *id), node.place());
  }
  if (text && (*text == "earliest" || *text == "latest" || *text == "snapshot")) return node;
  const bool is_id = text && !text->empty() && text->size() <= 18 &&
                     text->find_first_not_of("0123456789") == std::string::npos;
  if (!is_id) return fail(wrong_value(field, node, "not_allowed"));
  return node;
}

}  // namespace

std::vector<std::string_view> split_names(std::string_view names) {
  std::vector<std::string_view> out;
  while (!names.empty()) {
    const std::size_t comma = names.find(',');
    out.push_back(names.substr(0, comma));
    names.remove_prefix(comma == std::string_view::npos ? names.size() : comma + 1);
  }
  return out;
}

Result<Node> convert(const Field& field, const Node& node) {
  switch (field.type) {
    case FieldType::text:
      if (!node.text()) return fail(wrong_value(field, node, "wrong_type"));
      return node;
    case FieldType::integer:
      return in_range(field, node, whole_number(node), 1);
    case FieldType::number:
      return in_range(field, node, any_number(node), 1);
    case FieldType::boolean: {
      const auto value = truth(node);
      if (!value) return fail(wrong_value(field, node, "wrong_type"));
      return Node(*value, node.place());
    }
    case FieldType::duration:
      return in_range(field, node, amount(field, node), 1e3);
    case FieldType::bytes:
      return in_range(field, node, amount(field, node), 1);
    case FieldType::choice:
      return to_choice(field, node);
    case FieldType::list:
      return to_list(field, node);
    case FieldType::map:
      return to_map(field, node);
    case FieldType::start:
      return to_start(field, node);
  }
  return node;
}

}  // namespace relay::config
