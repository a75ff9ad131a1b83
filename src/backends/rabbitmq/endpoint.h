#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace relay::rabbitmq {

/// Where a broker is. Credentials are taken out of the URL, so that `address` may be shown.
struct Endpoint {
  std::string host;
  int port = 5672;
  std::string address;  ///< "host:port"
  bool tls = false;
  std::string user = "guest";
  std::string password = "guest";
  std::string vhost = "/";
};

/// "amqp://[user[:password]@]host[:port][/vhost]", or amqps:// for TLS; user, password and vhost
/// are percent-decoded; the ports are 5672 and 5671 unless given; without a path the vhost is "/".
/// Several are separated by commas. Misconfigured: anything else.
Result<std::vector<Endpoint>> parse_endpoints(std::string_view urls);

}  // namespace relay::rabbitmq
