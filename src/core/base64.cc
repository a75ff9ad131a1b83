#include "core/base64.h"

#include <openssl/evp.h>

#include <cstddef>

namespace relay {

namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string base64(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  append_base64(out, bytes);
  return out;
}

void append_base64(std::string& out, std::string_view bytes) {
  // In blocks, because the library counts in int and ends each call with a NUL.
  constexpr std::size_t kBlock = 3 * 1024;
  unsigned char encoded[kBlock / 3 * 4 + 1];
  for (std::size_t i = 0; i < bytes.size(); i += kBlock) {
    const std::string_view block = bytes.substr(i, kBlock);
    const int length =
        EVP_EncodeBlock(encoded, reinterpret_cast<const unsigned char*>(block.data()),
                        static_cast<int>(block.size()));
    out.append(reinterpret_cast<const char*>(encoded), static_cast<std::size_t>(length));
  }
}

std::optional<std::string> base64_decoded(std::string_view text) {
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string out;
  unsigned bits = 0;
  int held = 0;
  for (const char c : text) {
    const auto value = kAlphabet.find(c);
    if (value == std::string_view::npos) return std::nullopt;
    bits = (bits << 6 | static_cast<unsigned>(value)) & 0xFFFFFF;
    held += 6;
    if (held >= 8) {
      held -= 8;
      out += static_cast<char>(bits >> held & 0xFF);
    }
  }
  if (held == 6) return std::nullopt;  // one letter alone encodes no byte
  return out;
}

}  // namespace relay
