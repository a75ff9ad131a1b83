#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace relay::redis {

/// Where a server is. Credentials are taken out of the URL, so that `address` may be shown.
struct Endpoint {
  std::string host;
  std::string port;
  std::string address;  ///< "host:port"
  bool tls = false;
  std::string user;  ///< empty: the default user
  std::string password;
  int database = 0;
};

/// "redis://[user[:password]@]host[:port][/database]", or rediss:// for TLS; the user may be empty
/// (`redis://:password@host`), credentials are percent-decoded, the port is 6379 unless given.
/// Several are separated by commas. Misconfigured: anything else.
Result<std::vector<Endpoint>> parse_endpoints(std::string_view urls);

}  // namespace relay::redis
