#include "connector/header_object.h"

#include <simdjson.h>

#include <algorithm>

#include "core/base64.h"
#include "core/text.h"

namespace relay {

namespace {

/// PostgreSQL's text has no NUL, though UTF-8 has.
bool is_text(std::string_view bytes) {
  return bytes.find('\0') == std::string_view::npos &&
         simdjson::validate_utf8(bytes.data(), bytes.size());
}

}  // namespace

std::string as_text(std::string_view bytes) {
  return is_text(bytes) ? std::string(bytes) : "base64:" + base64(bytes);
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
