#pragma once

#include <span>
#include <string>
#include <string_view>

#include "core/error.h"

namespace relay::nats {

/// What cnats says of a failed connect. `status` is a natsStatus, `detail` its own words.
Error connect_error(int status, std::string_view detail, std::string_view address);

/// The host has no address.
Error unresolvable(std::string_view why, std::string_view address);

/// Why a connection that served is gone.
Error connection_lost(int status, std::string_view detail, std::string_view address);

/// The command of the NATS tool that makes a stream as `create_stream` would.
std::string add_stream_command(std::string_view stream, std::span<const std::string> subjects,
                               std::string_view address);

/// The stream is absent, and is not to be made.
Error no_stream(std::string_view stream, std::span<const std::string> subjects,
                std::string_view address);

/// A negative acknowledgement. `code` is the server's (10054, ...; 0: none), `subject` the
/// message's. Rejected: this message is poison. Else it may be sent again.
Error refusal(int status, int code, std::string_view text, std::string_view subject,
              std::string_view address);

/// A permission that the user lacks.
Error not_permitted(std::string_view detail, std::string_view address);

/// What the library says of a message that it does not take.
Error publish_error(int status, std::string_view detail, std::string_view address);

/// What asking for a stream, or making it, came to.
Error stream_error(int status, int code, std::string_view detail, std::string_view stream,
                   std::string_view address);

}  // namespace relay::nats
