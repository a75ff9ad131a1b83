#include "backends/redis/incarnation.h"

#include <fmt/core.h>

#include <cstdint>
#include <limits>
#include <random>

#include "backends/redis/entry_count.h"

namespace relay::redis {

std::string new_incarnation_id() {
  std::random_device random;
  return fmt::format("{}-{}", std::numeric_limits<std::uint64_t>::max(),
                     std::uniform_int_distribution<std::uint64_t>()(random));
}

std::string incarnation_in(const Reply& groups) {
  for (const Reply& group : groups.elements) {
    const auto state = GroupState::of(group);
    if (!state || state->name != kIncarnationGroup) continue;
    return state->last_delivered.substr(state->last_delivered.find('-') + 1);
  }
  return {};
}

}  // namespace relay::redis
