#include "connector/header_object.h"

#include <simdjson.h>

#include <algorithm>

#include "core/text.h"

namespace relay {

namespace {

/// PostgreSQL's text has no NUL, though UTF-8 has.
bool is_text(std::string_view bytes) {
  return bytes.find('\0') == std::string_view::npos &&
         simdjson::validate_utf8(bytes.data(), bytes.size());
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out = "base64:";
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::string_view group = bytes.substr(i, 3);
    unsigned bits = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      bits = bits << 8 | (k < group.size() ? static_cast<unsigned char>(group[k]) : 0u);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      out.push_back(k <= group.size() ? kDigits[bits >> (18 - 6 * k) & 63] : '=');
    }
  }
  return out;
}

}  // namespace

std::string as_text(std::string_view bytes) {
  return is_text(bytes) ? std::string(bytes) : base64(bytes);
}

std::string HeaderObject::json() const {
  std::string json;
  for (auto header = headers_.begin(); header != headers_.end(); ++header) {
    const auto same_name = [&](const auto& later) { return later.first == header->first; };
    if (std::any_of(header + 1, headers_.end(), same_name)) continue;
    json.push_back(json.empty() ? '{' : ',');
    append_json_string(json, as_text(header->first));
    json.push_back(':');
    append_json_string(json, as_text(header->second));
  }
  if (!json.empty()) json.push_back('}');
  return json;
}

}  // namespace relay
