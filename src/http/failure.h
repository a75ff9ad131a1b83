#pragma once

#include <chrono>
#include <string>

#include "core/error.h"

namespace relay::http {

/// A request that got no response.
struct Failure {
  int code = 0;                       ///< the library's
  std::string detail;                 ///< what the library says
  std::string origin;                 ///< of the URL
  std::chrono::milliseconds timeout;  ///< of the request
  std::string refused_address;        ///< the connection to it was refused: it is not public
  // The rest is of a request that goes through a proxy.
  std::string proxy;               ///< its origin
  std::string proxy_from;          ///< where it was configured
  int proxy_status = 0;            ///< what it answered to CONNECT, or 407; 0: nothing
  bool proxy_not_trusted = false;  ///< its certificate
  std::string tunnelled_to;        ///< the checked address that it was asked for; empty: the name
};

Error error_of(const Failure& failure);

/// Errors of requests through a proxy that is to be asked for a checked address.
Error private_address(const std::string& origin, const std::string& address);
Error unresolvable(const std::string& origin, const std::string& proxy);

}  // namespace relay::http
