#pragma once

#include <string>

struct sockaddr;

namespace relay::http {

/// True for an address of the public internet. False for everything that only means something near
/// here (private, loopback, link-local with the clouds' metadata services, carrier-grade NAT,
/// multicast, reserved, documentation), also where an IPv6 address wraps such an IPv4 one (mapped,
/// compatible, NAT64, 6to4), and for what is neither IPv4 nor IPv6.
bool is_public_address(const sockaddr& address);

/// "127.0.0.1", "fe80::1"; empty where it is neither IPv4 nor IPv6.
std::string address_text(const sockaddr& address);

}  // namespace relay::http
