#pragma once

#include <string_view>

#include "core/error.h"

namespace relay::redis {

/// What an error reply means. `subject` is what was asked for ("key orders", "AUTH"), `address` who
/// answered. Rejected: this one message is poison. Else it may be sent again.
Error refusal(std::string_view reply, std::string_view subject, std::string_view address);

}  // namespace relay::redis
