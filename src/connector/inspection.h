#pragma once

#include <string>
#include <vector>

#include "core/error.h"

namespace relay {

/// What looking at one end of a pipeline came to. Nothing is made, moved or sent for it.
struct Inspection {
  std::vector<Error> problems;     ///< why it would not work, as the running pipeline would say it
  std::vector<Error> warnings;     ///< it works, and may not be what was meant
  std::vector<std::string> notes;  ///< what is made, by the relay or its server, once it is needed

  /// A look that came to this error, or to nothing.
  static Inspection of(const Result<void>& looked) {
    Inspection found;
    if (!looked) found.problems.push_back(looked.error());
    return found;
  }
};

/// Something that one pipeline at a time should use. Two claims meet where `what` is the same and
/// they have a server in common, or neither has any.
struct Claim {
  std::string what;  ///< "the consumer 'orders' of the stream 'ORDERS'"
  std::vector<std::string> servers;
  std::string effect;   ///< of a second pipeline: "each of them gets some of the messages only"
  std::string remedy;   ///< "give each pipeline a consumer of its own"
  bool shared = false;  ///< several pipelines may be meant to use it
};

}  // namespace relay
