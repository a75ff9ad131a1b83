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

/// The bytes of a digest as a text, for use as a key or to be encoded.
std::string_view bytes_of(const Digest& digest);

/// Lower-case hexadecimal digits.
std::string hex(std::string_view bytes);

}  // namespace relay
