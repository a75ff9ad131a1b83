#include "http/server/request.h"

namespace relay::http {

std::optional<std::string> IncomingRequest::header(std::string_view name) const {
  std::optional<std::string> found;
  for (const auto& [own, value] : headers) {
    if (own != name) continue;
    if (found) {
      *found += ", " + value;
    } else {
      found = value;
    }
  }
  return found;
}

std::size_t IncomingRequest::head_bytes() const {
  std::size_t bytes = target.size();
  for (const auto& [name, value] : headers) bytes += name.size() + value.size();
  return bytes;
}

}  // namespace relay::http
