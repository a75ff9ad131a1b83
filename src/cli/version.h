#pragma once

#include <string>
#include <string_view>

#include "connector/registry.h"

namespace relay::cli {

/// What `version` prints: version and commit of the program, the backends that were built in, and
/// the versions of the libraries that it runs with. In lines, or as a JSON object.
std::string version_text(std::string_view program, const Registry& registry);
std::string version_json(std::string_view program, const Registry& registry);

}  // namespace relay::cli
