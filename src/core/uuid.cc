#include "core/uuid.h"

#include <openssl/rand.h>

#include <array>
#include <stdexcept>

namespace relay {

std::string new_uuid() {
  std::array<unsigned char, kUuidBytes> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
    throw std::runtime_error("no random bytes");
  }
  bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0f) | 0x40);
  bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3f) | 0x80);
  Arena arena;
  return std::string(uuid_text({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, arena));
}

std::string_view uuid_text(std::string_view bytes, Arena& arena) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  constexpr std::size_t kLength = 36;
  char* const text = arena.allocate(kLength);
  char* next = text;
  for (std::size_t i = 0; i < kUuidBytes; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *next++ = '-';
    const auto byte = static_cast<unsigned char>(bytes[i]);
    *next++ = kDigits[byte >> 4U];
    *next++ = kDigits[byte & 15U];
  }
  return {text, kLength};
}

}  // namespace relay
