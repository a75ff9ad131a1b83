#pragma once

#include <string_view>

namespace relay {

/// Whether a header (an attribute, a field) of this name holds the content type. Where the protocol
/// has no field for it, publishers choose the name: Content-Type, content_type or
/// contentType.
bool names_content_type(std::string_view name);

/// The value of the first header that says the content type; empty where none does. `headers` is a
/// range of pairs of name and value, which the result points into.
template <class Headers>
std::string_view content_type_in(const Headers& headers) {
  for (const auto& [name, value] : headers) {
    if (names_content_type(name)) return value;
  }
  return {};
}

}  // namespace relay
