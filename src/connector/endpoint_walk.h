#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/endpoint_errors.h"
#include "core/error.h"

namespace relay {

/// Which of several servers is tried next. A walk begins at the server that served last. A server
/// that fails gives way to the one behind it, and the next walk begins there. One thread.
class EndpointWalk {
 public:
  /// The first connection that `open(endpoint)`, a Result, succeeds with. Each server is tried once
  /// at most. An error of class cancelled ends the walk at once and says nothing of its server;
  /// other errors are collected as EndpointErrors does. `endpoints` is not empty.
  template <class Endpoint, class Open>
  auto open_first(const std::vector<Endpoint>& endpoints, Open&& open)
      -> std::invoke_result_t<Open&, const Endpoint&> {
    EndpointErrors errors;
    for (std::size_t tried = 0; tried < endpoints.size(); ++tried) {
      auto opened = open(endpoints[current_ % endpoints.size()]);
      if (opened || opened.error().error_class == ErrorClass::cancelled) return opened;
      ++current_;
      errors.add(std::move(opened.error()));
    }
    return fail(errors.error());
  }

 private:
  std::size_t current_ = 0;  // modulo the number of servers
};

}  // namespace relay
