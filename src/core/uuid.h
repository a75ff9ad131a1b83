#pragma once

#include <string>

namespace relay {

/// A random UUID (version 4). Throws where the system has no random bytes.
std::string new_uuid();

}  // namespace relay
