#pragma once

#include <array>
#include <cstddef>

#include "config/fields.h"

namespace relay::config {

/// One table of several, in their order.
template <std::size_t... sizes>
constexpr auto joined(const std::array<Field, sizes>&... parts) {
  std::array<Field, (sizes + ...)> all{};
  std::size_t next = 0;
  const auto append = [&](const auto& part) {
    for (const Field& field : part) all[next++] = field;
  };
  (append(parts), ...);
  return all;
}

}  // namespace relay::config
