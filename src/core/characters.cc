#include "core/characters.h"

#include <simdjson.h>

#include <algorithm>

namespace relay {

std::string_view first_characters(std::string_view text, std::size_t count) {
  std::size_t end = 0;
  for (; end < text.size(); ++end) {
    const bool begins = (static_cast<unsigned char>(text[end]) & 0xC0) != 0x80;
    if (begins && count-- == 0) break;
  }
  return text.substr(0, end);
}

std::string storable_text(std::string text) {
  const bool is_utf8 = simdjson::validate_utf8(text);
  std::ranges::replace_if(
      text, [&](char c) { return c == 0 || (!is_utf8 && static_cast<unsigned char>(c) > 0x7F); },
      '?');
  return text;
}

}  // namespace relay
