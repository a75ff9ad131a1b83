#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace relay::http {

/// Where a server listens.
struct ListenAddress {
  std::string host;  ///< without the brackets of an IPv6 address
  std::string port;  ///< as written
  bool bracketed = false;

  /// Whether the host is an IP address, which is all that a server can listen on.
  bool is_ip() const;
  /// 0 is a free port. Nothing: it is not a port.
  std::optional<std::uint16_t> port_number() const;
};

/// "0.0.0.0:9090", "[::1]:9090", "localhost:9090" (127.0.0.1), ":9090" (every IPv4 address).
/// Nothing where the text has no colon. What stands around it is not checked.
std::optional<ListenAddress> split_listen_address(std::string_view text);

}  // namespace relay::http
