#pragma once

#include <string>
#include <string_view>

#include "core/error.h"
#include "http/client.h"

namespace relay::sqs {

/// True where the credentials are too old, or the service says so.
bool is_expired_token(std::string_view code);

/// What an error of the service means. Codes that are not known: of the class rejected where the
/// sender is at fault, else transient.
Error service_error(std::string_view where, std::string_view code, std::string_view message,
                    bool sender_fault);

/// The error that a response other than 200 tells, in the JSON protocol.
Error response_error(std::string_view where, const http::Response& response);

}  // namespace relay::sqs
