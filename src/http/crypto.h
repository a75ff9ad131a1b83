#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/digest.h"

namespace relay::http {

Digest hmac_sha256(std::string_view key, std::string_view text);

/// Standard alphabet, with padding.
std::string base64(std::string_view bytes);
/// Nothing where the text is no base64; padding may be absent.
std::optional<std::string> base64_decoded(std::string_view text);

/// Compares in a time that tells nothing about where two texts of one length differ.
bool same_secret(std::string_view a, std::string_view b);

}  // namespace relay::http
