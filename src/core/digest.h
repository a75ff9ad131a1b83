#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

namespace relay {

using Digest = std::array<unsigned char, 32>;

Digest sha256(std::string_view text);
/// Of parts that follow each other.
Digest sha256(std::span<const std::string_view> parts);

Digest hmac_sha256(std::string_view key, std::string_view text);

/// Whether two texts are the same. The time that this takes depends on their lengths alone.
bool same_secret(std::string_view a, std::string_view b);

/// The bytes of a digest as a text, for use as a key or to be encoded.
std::string_view bytes_of(const Digest& digest);

/// Lower-case hexadecimal digits.
std::string hex(std::string_view bytes);

}  // namespace relay
