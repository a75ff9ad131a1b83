#pragma once

#include <string_view>

#include "core/error.h"

namespace relay::rabbitmq {

/// Why a broker closed a connection or a channel, by its reply code (403, 404, ...) and words.
/// `doing` is what was under way ("logging in", "publishing").
Error closed_by_broker(int code, std::string_view text, std::string_view doing,
                       std::string_view address);

/// What the library says of an operation, by its (negative) status.
Error library_error(int status, std::string_view doing, std::string_view address);

/// A broker whose certificate is not good enough.
Error not_trusted(std::string_view why, std::string_view address);

/// A message that no queue takes.
Error unroutable(std::string_view exchange, std::string_view routing_key);

}  // namespace relay::rabbitmq
