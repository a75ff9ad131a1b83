#include "connector/source_id.h"

namespace relay {

std::string id_part(std::string_view text) {
  std::string part;
  part.reserve(text.size());
  for (const char c : text) {
    if (c == ':') {
      part += "%3A";
    } else if (c == '%') {
      part += "%25";
    } else {
      part += c;
    }
  }
  return part;
}

std::string id_scope(std::string_view prefix) {
  return prefix.empty() ? std::string() : id_part(prefix) + ':';
}

}  // namespace relay
