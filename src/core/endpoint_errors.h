#pragma once

#include <optional>

#include "core/error.h"

namespace relay {

/// What came of the servers of a list, none of which could be used. A server that is away hides no
/// mistake, and a mistake hides no server that is away: the error tells of both. It is transient
/// where one of them is, for that server may come back.
class EndpointErrors {
 public:
  void add(Error error);
  /// After at least one.
  Error error() const;

 private:
  std::optional<Error> passing_;  // the first of each kind
  std::optional<Error> lasting_;
};

}  // namespace relay
