#pragma once

#include <span>
#include <string>
#include <string_view>

#include "backends/webhook/options.h"
#include "core/message.h"
#include "http/client.h"

namespace relay::webhook {

/// What a response says of the messages of its request.
struct Verdict {
  Outcome::Kind kind = Outcome::Kind::unknown;
  SharedError error;         ///< set unless delivered
  bool leave_alone = false;  ///< the server, or our configuration, is the cause: send nothing more
  bool counts = false;       ///< it is one of the `max_attempts` of these messages
  bool halts = false;        ///< until an operator resumes the pipeline
};

Verdict judge(const http::Response& response, const Options& options);

/// What the last of `max_attempts` refusals means: the message is rejected.
Verdict given_up(const Verdict& last, const Options& options);

/// What to do about a status that says that something is configured wrong.
std::string remedy_of(int status);

/// The beginning of a response's body, as one printable line without our secrets.
std::string excerpt(std::string_view body, std::span<const std::string> secrets);

}  // namespace relay::webhook
