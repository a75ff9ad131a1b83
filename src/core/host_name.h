#pragma once

#include <string>

namespace relay {

/// The name of this machine, as the operating system tells it.
std::string host_name();

}  // namespace relay
