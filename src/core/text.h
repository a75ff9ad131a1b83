#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/record.h"

namespace relay {

/// Appends `text` as a JSON string, quotes included. Bytes that are not UTF-8 become U+FFFD.
void append_json_string(std::string& out, std::string_view text);
std::string json_string(std::string_view text);

/// "2026-04-27T10:15:03.412Z": UTC, milliseconds.
std::string format_timestamp(Timestamp at);
void append_timestamp(std::string& out, Timestamp at);

/// The text without the blanks at both ends.
std::string_view trimmed(std::string_view text, std::string_view blanks = " \t\r\n");

/// These know ASCII letters only.
std::string lower_case(std::string_view text);
bool equal_ignoring_case(std::string_view a, std::string_view b);
bool contains_ignoring_case(std::string_view text, std::string_view part);

/// The parts of a text between single spaces, empty ones left out.
std::vector<std::string> words(std::string_view text);

/// The candidate that `word` was most likely meant to be, or empty when none is near.
std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates);

/// "a, b and c".
std::string join_names(std::span<const std::string_view> names);

/// One word of a command for a shell: as it is, or in quotes. For commands that users may copy.
std::string shell_word(std::string_view text);

}  // namespace relay
