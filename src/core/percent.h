#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace relay {

/// Letters, digits and -._~ (RFC 3986, section 2.3).
bool is_unreserved(char c);

/// Appends %XX.
void append_percent_escape(std::string& out, char c);

/// Appends `value` as one segment of a path, or a value of a query: everything but unreserved
/// characters becomes %XX.
void append_percent_encoded(std::string& out, std::string_view value);

/// What a text with percent escapes (RFC 3986, section 2.1) stands for. Nothing where a % begins no
/// two hex digits.
std::optional<std::string> percent_decoded(std::string_view text);

/// The same, but a % that begins no two hex digits stands for itself.
std::string percent_decoded_where_possible(std::string_view text);

}  // namespace relay
