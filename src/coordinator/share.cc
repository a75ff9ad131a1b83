#include "coordinator/share.h"

#include <fmt/core.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>

namespace relay::coordinator {

Share share_of(std::size_t pipelines, std::size_t instances, std::size_t held) {
  const std::size_t count = std::max<std::size_t>(instances, 1);
  const std::size_t most = (pipelines + count - 1) / count;
  return held <= most ? Share{most - held, 0} : Share{0, held - most};
}

Share leader_share(std::size_t pipelines, bool leader, std::size_t held) {
  return leader ? Share{pipelines - std::min(pipelines, held), 0} : Share{0, held};
}

std::int64_t lock_key(std::string_view group, std::string_view pipeline) {
  const std::string text =
      fmt::format("{}:{}{}:{}", group.size(), group, pipeline.size(), pipeline);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_md5(), nullptr);
  std::uint64_t key = 0;
  for (std::size_t i = 0; i < 8; ++i) key = key << 8 | digest[i];
  return static_cast<std::int64_t>(key);
}

}  // namespace relay::coordinator
