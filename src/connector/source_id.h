#pragma once

#include <string>
#include <string_view>

namespace relay {

/// The ids that sources make: "<prefix>:<part>:<part>...:<last part>". A colon inside a part is
/// "%3A" and a percent sign "%25", but for the last part, which stands as it is. So two sources
/// with different prefixes never make the same id, whatever publishers and brokers give them, and
/// one source makes the same id of the same parts only.

/// What such ids begin with: the prefix as a part, and its colon. Empty for an empty prefix.
std::string id_scope(std::string_view prefix);

/// A part before the last one, without its colon.
std::string id_part(std::string_view text);

}  // namespace relay
