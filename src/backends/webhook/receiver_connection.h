#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <set>

#include "backends/webhook/receiver_gate.h"

/// How the receiver talks over its connections. For receiver.cc alone.
namespace relay::webhook {

/// A request whose answer waits for the pipeline.
struct OpenRequest {
  enum class Fate { open, settled, given_up };
  boost::asio::steady_timer timer;
  Fate fate = Fate::open;
};

/// One connection, as its timer and a stop see it. Of the server's thread.
struct Connection {
  using Socket = boost::asio::ip::tcp::socket;

  Connection(boost::asio::io_context& io, Socket& of) : timer(io), socket(&of) {}
  /// Closes it; its coroutine sees that.
  void end();

  boost::asio::steady_timer timer;
  Socket* socket;          // null when its coroutine has ended
  bool late = false;       // the step under way has taken too long
  bool answering = false;  // a request is complete, and its answer is not sent yet
};

/// What the connections of a receiver share. Of the server's thread.
struct Reception {
  Reception(const ReceiverOptions& of, RequestQueue& to) : options(of), queue(to) {}

  void forget(const std::shared_ptr<Connection>& connection);
  /// Answers the requests up to this number with 200.
  void settle_open(std::int64_t number);
  /// Answers every request that waits with 503.
  void give_up_open();

  const ReceiverOptions options;
  RequestQueue& queue;
  const ReceiverGate gate{options, queue};
  boost::asio::io_context io{1};
  boost::asio::steady_timer last_resort{io};  // of a stop
  bool stopping = false;
  std::set<std::shared_ptr<Connection>> connections;
  std::map<std::int64_t, OpenRequest*> open;  // requests that wait for their answer
};

/// One connection from its beginning to its end, on the server's thread. `reception` outlives it.
boost::asio::awaitable<void> serve(Reception& reception, boost::asio::ip::tcp::socket socket);
boost::asio::awaitable<void> serve(Reception& reception,
                                   boost::asio::ssl::stream<boost::asio::ip::tcp::socket> stream);
/// A connection too many: it is told so.
boost::asio::awaitable<void> turn_away(Reception& reception, boost::asio::ip::tcp::socket socket);

}  // namespace relay::webhook
