#include "redis/incarnation.h"

#include <charconv>
#include <cstdint>
#include <limits>

#include <fmt/core.h>

#include "core/uuid.h"

namespace relay::redis {

std::string new_incarnation_id() {
  constexpr std::size_t kHexDigits = 12;  // of a UUID's last group
  const std::string uuid = new_uuid();
  std::uint64_t mark = 0;
  std::from_chars(uuid.data() + uuid.size() - kHexDigits, uuid.data() + uuid.size(), mark, 16);
  std::uint64_t more = 0;
  std::from_chars(uuid.data(), uuid.data() + 4, more, 16);
  return fmt::format("{}-{}", std::numeric_limits<std::uint64_t>::max(), more << 48 | mark);
}

std::string incarnation_in(const Reply& groups) {
  for (const Reply& group : groups.elements) {
    bool ours = false;
    std::string_view last;
    for (std::size_t i = 0; i + 1 < group.elements.size(); i += 2) {
      const std::string& value = group.elements[i + 1].text;
      if (group.elements[i].text == "name") ours = value == kIncarnationGroup;
      if (group.elements[i].text == "last-delivered-id") last = value;
    }
    if (ours) return std::string(last.substr(last.find('-') + 1));
  }
  return {};
}

}  // namespace relay::redis
