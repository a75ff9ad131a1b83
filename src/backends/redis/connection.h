#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/redis/codec.h"
#include "backends/redis/options.h"
#include "backends/redis/transport.h"
#include "connector/endpoint_walk.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/lease.h"

namespace relay::redis {

/// A connection to one server that was logged in to: commands go out behind each other, replies
/// come back in that order. After an error of `finish` it is of no use any more. One thread.
class Connection {
 public:
  /// Connects, authenticates, selects the database, and asks what the server is. Misconfigured: it
  /// refuses us. Transient: it is away, or loads its data.
  static Result<std::unique_ptr<Connection>> open(const ConnectionOptions& options,
                                                  const Endpoint& endpoint, int stop_fd);

  /// Begins to send commands that have `replies` replies; as much as goes without waiting. `bytes`
  /// must stay until `finish`.
  void start(std::string_view bytes, std::size_t replies);
  /// Sends the rest while it reads what comes, until all replies are there. On an error `replies`
  /// has those that came. Transient: broken, or silent for longer than `response_timeout` (beyond
  /// `silence_allowed`, which is for commands that wait at the server).
  Result<void> finish(std::vector<Reply>& replies, Deadline deadline, int stop_fd,
                      std::chrono::milliseconds silence_allowed = {});
  /// Both, for one command.
  Result<Reply> call(std::initializer_list<std::string_view> command, Deadline deadline,
                     int stop_fd);

  /// Whether the server has ended it, or sent what was not asked for, since the last reply.
  bool stale();

  /// From now on it ends with the lease.
  Result<void> end_with(Lease& lease);

  const std::string& address() const { return address_; }
  bool is_replica() const { return replica_; }
  /// The longest argument that the server takes, where it may be asked; 0: not known.
  std::size_t max_argument() const { return max_argument_; }
  /// Asks again: the operator may have raised it. Errors are left for the next command to meet.
  void ask_max_argument(Deadline deadline, int stop_fd);

 private:
  Connection(const ConnectionOptions& options, const Endpoint& endpoint)
      : address_(endpoint.address), response_timeout_(options.response_timeout) {}

  Result<void> log_in(const ConnectionOptions& options, const Endpoint& endpoint, Deadline deadline,
                      int stop_fd);
  void note_max_argument(const Reply& reply);
  Result<std::size_t> send_some();
  Result<std::size_t> receive_some(std::vector<Reply>& replies);
  Error silent() const;

  const std::string address_;
  const std::chrono::milliseconds response_timeout_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<SocketCutter> cutter_;  // behind the socket that it cuts
  ReplyReader reader_;
  std::vector<char> room_ = std::vector<char>(64 * 1024);
  std::string_view unsent_;
  std::size_t expected_ = 0;
  Result<void> sent_;  // why nothing more can be sent
  bool replica_ = false;
  std::size_t max_argument_ = 0;
};

/// Connects to the first of the servers that serves. With `master`, a replica does not count.
/// Errors: as of EndpointWalk.
Result<std::unique_ptr<Connection>> open_any(const ConnectionOptions& options, EndpointWalk& walk,
                                             bool master, int stop_fd);

}  // namespace relay::redis
