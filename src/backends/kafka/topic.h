#pragma once

#include <string>
#include <string_view>

namespace relay::kafka {

/// What makes `topic` no legal name of a topic; empty: nothing.
std::string_view topic_problem(std::string_view topic);

/// Appends `value` so that it may be part of a topic's name, reversibly: a byte that no name may
/// have becomes ".-XX" (the byte in hex, upper case), ".-" itself ".-2E-", an empty value ".-".
void escape_topic(std::string& out, std::string_view value);

}  // namespace relay::kafka
