#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace relay::kafka {

/// A partition of a topic.
using Place = std::pair<std::string, std::int32_t>;

}  // namespace relay::kafka
