#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"
#include "core/stop_event.h"
#include "lineq/options.h"

namespace relay::lineq {

/// A connection to the server, on which lines are sent and received. Nothing blocks but `next`,
/// which ends with its deadline or a stop (and resolving a host's name, which takes as long as the
/// system's resolver). One thread at a time.
class Connection {
 public:
  /// Connects and shows the token. Transient: the server is away. Misconfigured: it refuses us.
  static Result<std::unique_ptr<Connection>> open(const ConnectionOptions& options,
                                                  std::stop_token stop);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  int socket() const { return socket_; }
  const std::string& address() const { return options_.server.address; }

  /// Puts a line behind those that are to be sent; the next calls of `next` send it.
  void send(std::initializer_list<std::string_view> fields);
  void send(std::span<const std::string_view> fields);
  /// Bytes that the kernel has not taken yet.
  std::size_t unsent() const { return out_.size() - sent_; }

  /// The next line of the server; sends meanwhile. Nothing: the deadline has passed, or a stop was
  /// asked for. Transient: the connection is gone.
  Result<std::optional<std::vector<std::string>>> next(Deadline deadline, const StopEvent& stop);
  /// Sends what is due, until the deadline.
  Result<void> flush(Deadline deadline, const StopEvent& stop);

  /// The server did not answer within `timeout`.
  Error silent() const;
  /// The server answered what the protocol does not have.
  Error unexpected(const std::vector<std::string>& line) const;

 private:
  Connection(const ConnectionOptions& options, int socket) : options_(options), socket_(socket) {}
  Result<void> log_in(std::stop_token stop);
  Result<void> write();
  Result<void> read();
  std::optional<std::vector<std::string>> take_line();
  bool wait(bool for_lines, Deadline deadline, const StopEvent& stop);
  Error lost(std::string_view why) const;

  const ConnectionOptions options_;
  const int socket_;
  std::string out_;
  std::size_t sent_ = 0;  // of out_
  std::string in_;
  std::size_t taken_ = 0;     // of in_
  std::size_t searched_ = 0;  // of in_: no newline between `taken_` and here
};

}  // namespace relay::lineq
