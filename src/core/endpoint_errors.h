#pragma once

#include <optional>

#include "core/error.h"

namespace relay {

/// Why none of the servers of a list could be used. The error reports both kinds of cause, so that
/// an unreachable server does not hide a wrong setting, nor the reverse. It is transient if one of
/// the causes is, because that server may come back.
class EndpointErrors {
 public:
  void add(Error error);
  /// At least one error was added.
  Error error() const;

 private:
  std::optional<Error> passing_;  // the first transient one, and the first other one
  std::optional<Error> lasting_;
};

}  // namespace relay
