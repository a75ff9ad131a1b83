#pragma once

#include <string>
#include <vector>

#include "core/error.h"

namespace relay {

/// The result of inspecting one end of a pipeline. An inspection creates, moves and sends nothing.
struct Inspection {
  std::vector<Error> problems;     ///< why the pipeline would fail, in its own words
  std::vector<Error> warnings;     ///< it works, but perhaps not as intended
  std::vector<std::string> notes;  ///< what will be created once it is needed

  /// An inspection that found this error, or no problem.
  static Inspection of(const Result<void>& looked) {
    Inspection found;
    if (!looked) found.problems.push_back(looked.error());
    return found;
  }
};

/// Something that only one pipeline should use at a time. Two claims conflict if `what` is the same
/// and they have a server in common, or neither has any.
struct Claim {
  std::string what;  ///< "the consumer 'orders' of the stream 'ORDERS'"
  std::vector<std::string> servers;
  std::string effect;   ///< of a second pipeline: "each of them gets some of the messages only"
  std::string remedy;   ///< "give each pipeline a consumer of its own"
  bool shared = false;  ///< several pipelines may be meant to use it
};

}  // namespace relay
