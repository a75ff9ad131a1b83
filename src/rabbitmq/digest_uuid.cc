#include "rabbitmq/digest_uuid.h"

#include <fmt/core.h>
#include <openssl/evp.h>

#include <array>

namespace relay::rabbitmq {

std::string digest_uuid(std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  EVP_Digest(text.data(), text.size(), digest.data(), nullptr, EVP_sha256(), nullptr);
  std::string uuid;
  for (std::size_t i = 0; i < 16; ++i) {
    uuid += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", digest[i]);
  }
  return uuid;
}

}  // namespace relay::rabbitmq
