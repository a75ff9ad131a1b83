#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "core/error.h"
#include "http/server/service.h"
#include "http/server/tls.h"

namespace relay::http {

/// What a server does with a new connection where it has as many as it may have.
enum class WhenFull {
  close_oldest,  ///< the connection that has been in its state longest makes room for it
  turn_away,     ///< it is answered with `Service::refusal`; with TLS it is closed
};

/// What a client may ask of a server.
struct ServerLimits {
  std::uint32_t header_bytes = 8 * 1024;
  std::uint64_t body_bytes = 16 * 1024;
  std::size_t connections = 512;
  WhenFull when_full = WhenFull::close_oldest;
  /// Most bytes of answers that clients have not taken yet; beyond, the oldest such connection is
  /// closed.
  std::size_t unread_bytes = std::numeric_limits<std::size_t>::max();
  std::size_t descriptors_in_reserve = 0;  ///< for connections when the process has no others left
  int socket_buffer = 0;                   ///< bytes in either direction; 0: the system decides
  std::chrono::milliseconds idle{30'000};  ///< between requests
  std::chrono::milliseconds request{5'000};       ///< from a request's first byte to its last
  std::chrono::milliseconds sending{10'000};      ///< until the client has taken the answer
  std::chrono::milliseconds before_pipelined{0};  ///< pause before a request that did not wait
  /// Pause where neither descriptors nor memory are left, nor a connection to close for them.
  std::chrono::milliseconds before_accepting{2};
  std::chrono::milliseconds stop{0};  ///< for the answers to complete requests when it stops
};

struct ServerOptions {
  ServerLimits limits;
  TlsFiles tls;
  std::string pipeline;  ///< for log lines; may be empty
};

/// An HTTP/1.1 server: keep-alive, pipelining, HEAD, 100-continue, TLS, and limits on everything
/// that a client can choose. A `Service` answers the requests.
///
/// One thread serves all connections, and never waits: no client and no answer that takes long
/// keeps it from answering another connection.
class Server {
 public:
  /// Listens; nothing is accepted before `start`. Errors: "tls_files" (misconfigured), or "listen"
  /// (transient), whose message is the system's. The service outlives the server.
  static Result<std::unique_ptr<Server>> listen(const std::string& host, std::uint16_t port,
                                                Service& service, ServerOptions options);
  /// Whether `listen` would succeed, another use of the address aside. Accepts nothing.
  static Result<void> could_listen(const std::string& host, std::uint16_t port,
                                   const TlsFiles& tls);
  /// Stops.
  ~Server();

  void start();
  int port() const;
  /// Runs a function on the server's thread. Any thread.
  void post(std::function<void()> function);
  /// Accepts nothing more, lets the service answer what is pending, and ends all connections. Any
  /// thread but the server's; does nothing when called again.
  void stop();

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace relay::http
