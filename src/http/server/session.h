#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>

#include "http/server/connections.h"
#include "http/server/descriptor_reserve.h"
#include "http/server/server.h"
#include "http/server/service.h"

/// How a server talks over its connections. For the .cc files of this room alone.
namespace relay::http {

/// What the connections of a server share. Of the server's thread.
struct Premises {
  Premises(Service& of, ServerLimits most)
      : service(of), limits(most), reserve(most.descriptors_in_reserve) {}

  Service& service;
  const ServerLimits limits;
  boost::asio::io_context io{1};
  boost::asio::steady_timer last_resort{io};  // ends connections that a stop has spared
  bool stopping = false;
  Connections connections;
  DescriptorReserve reserve;
};

/// One connection from its beginning to its end. `tls`: null for plain HTTP.
boost::asio::awaitable<void> serve(Premises& premises, boost::asio::ip::tcp::socket socket,
                                   boost::asio::ssl::context* tls);
/// A connection too many: the client is told so.
boost::asio::awaitable<void> turn_away(Premises& premises, boost::asio::ip::tcp::socket socket);

}  // namespace relay::http
