#include "http/server/listen_address.h"

#include <boost/asio/ip/address.hpp>
#include <charconv>

namespace relay::http {

bool ListenAddress::is_ip() const {
  boost::system::error_code error;
  boost::asio::ip::make_address(host, error);
  return !error;
}

std::optional<std::uint16_t> ListenAddress::port_number() const {
  std::uint16_t number = 0;
  const char* const end = port.data() + port.size();
  const auto [behind, error] = std::from_chars(port.data(), end, number);
  if (port.empty() || error != std::errc() || behind != end) return std::nullopt;
  return number;
}

std::optional<ListenAddress> split_listen_address(std::string_view text) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() > 1 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (host == "localhost") host = "127.0.0.1";
  if (host.empty()) host = "0.0.0.0";
  return ListenAddress{std::string(host), std::string(text.substr(colon + 1)), bracketed};
}

}  // namespace relay::http
