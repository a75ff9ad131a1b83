#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <memory>

#include "http/server/connections.h"
#include "http/server/service.h"

/// For the .cc files of this room alone.
namespace relay::http {

class Connection;

/// Where a connection is; null when it has ended. Timers and services hold this, not the
/// connection.
struct ConnectionPlace {
  Connection* connection = nullptr;
};

/// One connection: the time limit of the step under way, and the answer that it waits for. Of the
/// server's thread.
class Connection : public ListedConnection {
 public:
  /// The socket outlives it.
  Connection(boost::asio::io_context& io, boost::asio::ip::tcp::socket& socket);
  ~Connection() override;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// Cancels what waits for the client when the time is over. The connection stays open, so that an
  /// answer can be sent.
  void allow(std::chrono::milliseconds time);
  void allow_any_time();
  /// The time of the step under way has passed.
  bool is_late() const { return late_; }

  /// Hands a request to the service and waits for its answer.
  boost::asio::awaitable<SharedAnswer> ask(Service& service, IncomingRequest&& request);

  /// Whether a request is complete and its answer is not sent yet.
  bool is_answering() const { return answering_; }
  void set_answering(bool answering) { answering_ = answering; }

 private:
  friend class PendingAnswer;
  void close() override;
  void cancel_when_late();

  boost::asio::ip::tcp::socket& socket_;
  const std::shared_ptr<ConnectionPlace> place_;
  boost::asio::steady_timer step_;
  bool late_ = false;
  bool answering_ = false;
  boost::asio::steady_timer answered_;  // expires when the answer is late; cancelled with each news
  std::uint64_t request_ = 0;           // number of the request that waits for its answer
  std::int64_t ticket_ = 0;
  SharedAnswer answer_;
};

}  // namespace relay::http
