#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "backends/redis/options.h"
#include "core/deadline.h"
#include "core/error.h"

namespace relay::redis {

/// A connected byte stream to one server, plain or TLS. Nothing blocks but `connect` and `wait`,
/// and these end with their deadline or a stop. One thread at a time.
class Transport {
 public:
  /// Connects, and verifies the server where it is TLS. `stop_fd` becomes readable when a stop is
  /// asked for (class cancelled then). Resolving a host's name waits as long as the system's
  /// resolver does.
  static Result<std::unique_ptr<Transport>> connect(const ConnectionOptions& options,
                                                    const Endpoint& endpoint, Deadline deadline,
                                                    int stop_fd);
  ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  /// Bytes that were moved; 0: none can be now. Transient: the connection is gone (`read` says so
  /// only behind the last byte that came).
  Result<std::size_t> write(std::string_view bytes);
  Result<std::size_t> read(std::span<char> room);

  int socket() const { return socket_; }

  enum class Woken { ready, deadline, stopped };
  /// Until bytes can be read, or, with `to_write`, written.
  Woken wait(bool to_write, Deadline deadline, int stop_fd);

 private:
  struct Tls;
  Transport(int socket, std::string address);
  Result<void> start_tls(const ConnectionOptions& options, const Endpoint& endpoint,
                         Deadline deadline, int stop_fd);
  Error gone(std::string_view why) const;
  Result<std::size_t> tls_result(int result);

  int socket_;
  std::string address_;
  std::unique_ptr<Tls> tls_;
};

}  // namespace relay::redis
