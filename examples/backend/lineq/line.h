#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace relay::lineq {

/// A line is fields separated by tabs, and ends with a newline. Inside a field a backslash, a tab
/// and a newline are `\\`, `\t` and `\n`; all other bytes stand for themselves. Pure.
void append_line(std::string& out, std::span<const std::string_view> fields);

/// The fields of a line without its newline.
std::vector<std::string> split_line(std::string_view line);

}  // namespace relay::lineq
