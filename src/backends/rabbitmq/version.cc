#include "backends/rabbitmq/version.h"

#include <charconv>

namespace relay::rabbitmq {

ServerVersion parse_version(std::string_view product, std::string_view version) {
  ServerVersion found;
  found.is_rabbitmq = product == "RabbitMQ";
  const char* const end = version.data() + version.size();
  const auto major = std::from_chars(version.data(), end, found.major);
  if (major.ec == std::errc() && major.ptr != end && *major.ptr == '.') {
    std::from_chars(major.ptr + 1, end, found.minor);
  }
  return found;
}

}  // namespace relay::rabbitmq
