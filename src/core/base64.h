#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace relay {

/// Standard alphabet, with padding (RFC 4648, section 4).
std::string base64(std::string_view bytes);
void append_base64(std::string& out, std::string_view bytes);
/// Nothing where the text is not base64; padding may be absent.
std::optional<std::string> base64_decoded(std::string_view text);

}  // namespace relay
