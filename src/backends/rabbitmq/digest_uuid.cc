#include "backends/rabbitmq/digest_uuid.h"

#include "core/digest.h"

namespace relay::rabbitmq {

std::string digest_uuid(std::string_view text) {
  std::string uuid = hex(bytes_of(sha256(text)).substr(0, 16));
  for (const std::size_t dash : {8U, 13U, 18U, 23U}) uuid.insert(dash, 1, '-');
  return uuid;
}

}  // namespace relay::rabbitmq
