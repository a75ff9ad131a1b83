#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "backends/rabbitmq/arguments.h"
#include "backends/rabbitmq/heartbeat.h"
#include "backends/rabbitmq/notice.h"
#include "backends/rabbitmq/options.h"
#include "backends/rabbitmq/stream.h"
#include "backends/rabbitmq/version.h"
#include "connector/endpoint_walk.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/lease.h"
#include "core/message.h"
#include "core/mutex.h"

namespace relay::rabbitmq {

/// A connection to one broker that was logged in to, with one open channel. One thread at a time,
/// as the library asks; only `wait` may run beside another call.
///
/// The library sends heartbeats only inside of its calls, and there are none while the connection
/// rests. So a Heartbeat does that, unless `heartbeat` is 0 or the broker wants none. A time-out of
/// TCP finds a peer that takes no bytes.
class Connection {
 public:
  /// Connects, verifies, logs in and opens the channel. Misconfigured: the broker refuses us.
  /// Transient: it is away.
  static Result<std::unique_ptr<Connection>> open(const ConnectionOptions& options,
                                                  const Endpoint& endpoint);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// Makes an exchange, or, with `passive`, checks that it is there. The connection is of no use
  /// any more after an error; so for all of these.
  Result<void> declare_exchange(const std::string& name, const std::string& type, bool passive,
                                const Arguments& arguments = {});
  /// From now on each publish is confirmed.
  Result<void> want_confirms();

  /// How many messages are ready in a queue, or how many a stream has; null: there is no such
  /// queue, and the connection is of no use afterwards.
  Result<std::optional<std::uint32_t>> count_ready(const std::string& name);
  /// Makes a durable queue; or sees that there is one with these properties.
  Result<void> declare_queue(const std::string& name, const Arguments& arguments);
  Result<void> bind_queue(const std::string& name, const std::string& exchange,
                          const std::string& key);
  /// From now on messages of the queue are notices, at most `prefetch` that are not acknowledged;
  /// of a stream from a place on. An earlier consumer of this connection ends.
  Result<void> consume(const std::string& queue, std::uint16_t prefetch,
                       const std::optional<StreamOffset>& from = {});
  /// Acknowledges all messages up to the one with this tag.
  Result<void> acknowledge_up_to(std::uint64_t tag);

  struct Publish {
    std::string_view exchange;
    bool mandatory = true;
    bool persistent = true;
  };
  /// From now on it ends with the lease.
  Result<void> end_with(Lease& lease);

  /// Sends a message. Rejected: it cannot be sent (and nothing was). Waits where the broker takes
  /// no bytes, so ask `wait` first whether it does.
  Result<void> publish(const Message& message, const Publish& how);

  /// What the broker has said, if anything; never waits. Transient or misconfigured: the connection
  /// is gone.
  Result<std::optional<Notice>> next_notice();

  struct Wait {
    bool readable = false;
    bool writable = false;
    bool stopped = false;
  };
  /// Until the broker has said something, takes bytes (with `to_write`), a stop or the deadline.
  Wait wait(bool to_write, Deadline deadline, int stop_fd);

  /// The broker takes no messages for now (it lacks memory or disk): why, or empty.
  const std::string& blocked() const { return blocked_; }
  const std::string& address() const { return address_; }
  const ServerVersion& version() const { return version_; }
  int socket() const;
  /// Ends it without a farewell: the broker does not listen, or there is no time to wait.
  void abandon() { broken_ = true; }

 private:
  struct State;
  Connection(const ConnectionOptions& options, const Endpoint& endpoint);

  Result<void> connect(const ConnectionOptions& options, const Endpoint& endpoint);
  Result<void> open_socket(const ConnectionOptions& options, const Endpoint& endpoint);
  Result<void> log_in(const ConnectionOptions& options, const Endpoint& endpoint);
  Result<void> answer_of_last_call(std::string_view doing);
  tl::unexpected<Error> broke(Error error);
  tl::unexpected<Error> broke(int status, std::string_view doing);
  void start_heartbeat();
  void send_heartbeat();

  const std::string address_;
  std::unique_ptr<State> state_;
  ServerVersion version_;
  std::string consumer_;  // its tag; empty: none
  std::string blocked_;
  bool broken_ = false;
  std::unique_ptr<SocketCutter> cutter_;
  Mutex
      library_;  // held in each call of the library, by the connection's thread or the heartbeat's
  std::unique_ptr<Heartbeat> heartbeat_;  // null: there are none
};

/// Connects to the first of the servers that serves. A stop is seen between two of them. Errors: as
/// of EndpointWalk.
Result<std::unique_ptr<Connection>> open_any(const ConnectionOptions& options, EndpointWalk& walk,
                                             std::stop_token stop);

}  // namespace relay::rabbitmq
