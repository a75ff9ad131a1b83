#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace relay {

/// The first `count` characters of a text that is UTF-8.
std::string_view first_characters(std::string_view text, std::size_t count);

/// The text as PostgreSQL can hold it: a NUL, and in a text that is not UTF-8 each byte beyond
/// ASCII, becomes a question mark.
std::string storable_text(std::string text);

}  // namespace relay
