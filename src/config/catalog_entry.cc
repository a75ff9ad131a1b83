#include <fmt/core.h>
#include <simdjson.h>

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/catalog_file.h"
#include "config/file_entry.h"
#include "config/tree.h"

namespace relay::config {
namespace {

namespace dom = simdjson::ondemand;

// A text in quotes. TOML forbids the control characters, DEL too.
std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string key_of(std::string_view key) {
  constexpr std::string_view kBare =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
  const bool bare = !key.empty() && key.find_first_not_of(kBare) == key.npos;
  return bare ? std::string(key) : in_quotes(key);
}

// TOML has whole numbers of 64 bits and doubles. Nothing where the digits would not survive them.
bool survives(std::string_view number) {
  std::int64_t whole = 0;
  const char* end = number.data() + number.size();
  if (const auto read = std::from_chars(number.data(), end, whole);
      read.ec == std::errc() && read.ptr == end) {
    return number != "-0";
  }
  double value = 0;
  const auto read = std::from_chars(number.data(), end, value);
  return number.find('.') != number.npos && number.find_first_of("eE") == number.npos &&
         read.ec == std::errc() && read.ptr == end && Node(value, "").to_json() == number;
}

// Values as TOML writes them inside of a line; nothing where TOML cannot.
std::optional<std::string> inline_value(dom::value value);

std::optional<std::string> inline_table(dom::object object) {
  std::string out = "{";
  for (auto member : object) {
    const std::string key(std::string_view(member.unescaped_key()));
    const auto text = inline_value(member.value());
    if (!text) return std::nullopt;
    out += fmt::format("{} {} = {}", out.size() > 1 ? "," : "", key_of(key), *text);
  }
  return out + (out.size() > 1 ? " }" : "}");
}

std::optional<std::string> inline_array(dom::array array) {
  std::string out = "[";
  for (dom::value element : array) {
    const auto text = inline_value(element);
    if (!text) return std::nullopt;
    if (out.size() > 1) out += ", ";
    out += *text;
  }
  return out + ']';
}

std::optional<std::string> inline_value(dom::value value) {
  switch (dom::json_type(value.type())) {
    case dom::json_type::object:
      return inline_table(value.get_object());
    case dom::json_type::array:
      return inline_array(value.get_array());
    case dom::json_type::string:
      return in_quotes(std::string_view(value.get_string()));
    case dom::json_type::boolean:
      return bool(value.get_bool()) ? "true" : "false";
    case dom::json_type::number: {
      std::string_view number = value.raw_json_token();
      number = number.substr(0, number.find_first_not_of("0123456789+-.eE"));
      return survives(number) ? std::optional(std::string(number)) : std::nullopt;
    }
    case dom::json_type::null:
      break;
  }
  return std::nullopt;
}

// Options on lines of their own, objects as tables after them.
std::optional<std::string> options(dom::object object) {
  std::string lines;
  std::string tables;
  for (auto member : object) {
    const std::string key(std::string_view(member.unescaped_key()));
    if (is_entry_key(key) || key == "config") return std::nullopt;
    dom::value value = member.value();
    if (dom::json_type(value.type()) != dom::json_type::object) {
      const auto text = inline_value(value);
      if (!text) return std::nullopt;
      lines += fmt::format("{} = {}\n", key_of(key), *text);
      continue;
    }
    tables += fmt::format("[pipeline.{}]\n", key_of(key));
    for (auto inner : value.get_object()) {
      const std::string name(std::string_view(inner.unescaped_key()));
      const auto text = inline_value(inner.value());
      if (!text) return std::nullopt;
      tables += fmt::format("{} = {}\n", key_of(name), *text);
    }
  }
  return lines + tables;
}

std::optional<std::string> as_toml(std::string_view json) {
  try {
    dom::parser parser;
    const simdjson::padded_string padded(json);
    dom::document document = parser.iterate(padded);
    return options(document.get_object());
  } catch (const simdjson::simdjson_error&) {
    return std::nullopt;  // no object, or deeper than the parser goes
  }
}

std::string whole(std::string_view json) {
  const bool literal = json.find("'''") == json.npos && json.find('\x7f') == json.npos &&
                       json.find('\n') == json.npos;
  return literal ? fmt::format("config = '''\n{}'''\n", json)
                 : fmt::format("config = {}\n", in_quotes(json));
}

}  // namespace

std::string catalog_entry(std::string_view name, std::string_view direction, bool enabled,
                          std::string_view json) {
  std::string out =
      fmt::format("[[pipeline]]\nname = {}\nenabled = {}\n", in_quotes(name), enabled);
  if (!direction.empty()) out += fmt::format("direction = {}\n", in_quotes(direction));
  if (const auto toml = as_toml(json)) return out + *toml;
  return out + "# TOML has no such value:\n" + whole(json);
}

}  // namespace relay::config
