#pragma once

#include <string_view>

namespace relay::cli {

/// The commit that the program was built from, as the build was told or as git knows it; "unknown".
std::string_view commit();

}  // namespace relay::cli
