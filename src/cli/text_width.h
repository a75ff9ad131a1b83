#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace relay::cli {

/// How many columns of a terminal a UTF-8 text takes: wide characters take two, combining ones
/// none. Bytes that are no UTF-8 take one each.
std::size_t text_width(std::string_view text);

/// The text as it may be shown in a line of a terminal: control characters, which could move the
/// cursor or do worse, are written as escapes.
std::string printable(std::string_view text);

/// At most so many columns of it; where something is left out, `ellipsis` ends it.
std::string cut(std::string_view text, std::size_t columns, std::string_view ellipsis);

/// The text in lines of at most so many columns. A line ends at a blank where one is near.
std::vector<std::string> wrapped(std::string_view text, std::size_t columns);

}  // namespace relay::cli
