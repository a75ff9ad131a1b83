#pragma once

#include <string_view>

namespace relay::nats {

/// What a message without a body says of a request for messages.
enum class PullStatus {
  alive,      ///< it goes on
  ended,      ///< it has ended, with fewer messages than it was for, and another one may be made
  too_large,  ///< it has ended, for the next message is larger than the bytes that it was for
  failed,     ///< the server does not serve it
};

/// `status` and `text`: its headers Status and Description. Servers from 2.10 on say "Batch
/// Completed" where the bytes were used up; before, that was "Message Size Exceeds MaxBytes" as
/// well.
PullStatus pull_status_of(std::string_view status, std::string_view text);

}  // namespace relay::nats
