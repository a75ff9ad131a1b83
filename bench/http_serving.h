#pragma once

#include <unistd.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstdio>
#include <exception>
#include <functional>
#include <utility>

namespace bench {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using HttpRequest = http::request<http::string_body>;
using HttpResponse = http::response<http::string_body>;
using HttpAnswer = std::function<asio::awaitable<void>(const HttpRequest&, HttpResponse&)>;

inline asio::awaitable<void> serve_connection(tcp::socket socket, const HttpAnswer& answer) {
  socket.set_option(tcp::no_delay(true));
  boost::beast::flat_buffer buffer;
  try {
    while (true) {
      HttpRequest request;
      co_await http::async_read(socket, buffer, request, asio::use_awaitable);
      HttpResponse response{http::status::ok, request.version()};
      co_await answer(request, response);
      response.keep_alive(request.keep_alive());
      response.prepare_payload();
      co_await http::async_write(socket, response, asio::use_awaitable);
      if (!response.keep_alive()) co_return;
    }
  } catch (const std::exception&) {
    // The client hung up.
  }
}

inline asio::awaitable<void> serve_connections(tcp::acceptor acceptor, const HttpAnswer& answer) {
  while (true) {
    tcp::socket socket = co_await acceptor.async_accept(asio::use_awaitable);
    asio::co_spawn(acceptor.get_executor(), serve_connection(std::move(socket), answer),
                   asio::detached);
  }
}

/// Serves a free port of loopback, which it prints, in this thread until standard input ends.
inline void serve_http(asio::io_context& context, const HttpAnswer& answer) {
  tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), 0});
  std::printf("%d\n", acceptor.local_endpoint().port());
  std::fflush(stdout);
  asio::co_spawn(context, serve_connections(std::move(acceptor), answer), asio::detached);
  asio::posix::stream_descriptor input(context, ::dup(STDIN_FILENO));
  char byte = 0;
  input.async_read_some(asio::buffer(&byte, 1),
                        [&](const boost::system::error_code&, std::size_t) { context.stop(); });
  context.run();
}

}  // namespace bench
