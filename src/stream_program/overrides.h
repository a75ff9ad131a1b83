#pragma once

#include <string_view>
#include <vector>

#include "config/tree.h"
#include "stream_program/configuration.h"

namespace relay::stream_program {

/// Puts the values of environment variables into the tree of a file: each name is a path, whose
/// parts are separated by two underscores; a part may be the number of an element of a list.
void override_values(config::Node& root, const Overrides& overrides, std::vector<Error>& problems);

}  // namespace relay::stream_program
