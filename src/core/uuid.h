#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/arena.h"

namespace relay {

inline constexpr std::size_t kUuidBytes = 16;

/// A random UUID (version 4). Throws where the system has no random bytes.
std::string new_uuid();

/// "f81d4fae-7dec-11d0-a765-00a0c91e6bf6" of kUuidBytes bytes.
std::string_view uuid_text(std::string_view bytes, Arena& arena);

}  // namespace relay
