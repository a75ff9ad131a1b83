#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace relay::http {

using Digest = std::array<unsigned char, 32>;

Digest sha256(std::string_view text);
Digest hmac_sha256(std::string_view key, std::string_view text);

/// The bytes of a digest as a text, for use as a key or to be encoded.
std::string_view bytes_of(const Digest& digest);

/// Lower-case hex.
std::string hex(std::string_view bytes);
/// Standard alphabet, with padding.
std::string base64(std::string_view bytes);
/// Nothing where the text is no base64; padding may be absent.
std::optional<std::string> base64_decoded(std::string_view text);

/// Compares in a time that tells nothing about where two texts of one length differ.
bool same_secret(std::string_view a, std::string_view b);

}  // namespace relay::http
