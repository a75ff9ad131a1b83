#pragma once

#include "config/tree.h"

namespace relay::config {

/// Whether both are the same value, as jsonb compares: 1 and 1.0 are, 1 and "1" are not.
bool same_value(const Node& one, const Node& other);

}  // namespace relay::config
