#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"

namespace relay {

/// Why a source refuses a broker's message that is beyond `max_record_bytes`. `what` names it: "the
/// entry 1-0 of 'orders'".
SharedError too_large(std::string_view what, std::size_t bytes, std::int64_t max_record_bytes);

}  // namespace relay
