#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "config/tls.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/lease.h"
#include "http/headers.h"

namespace relay::http {

/// The defaults are those of a client that no table of options fills, such as the one that asks for
/// credentials.
struct ClientOptions : config::TlsOptions {
  std::size_t max_connections = 16;
  std::chrono::milliseconds connect_timeout{5000};
  /// False: a connection to an address that is not public is refused, whatever name it came from.
  /// A proxy may be anywhere; it is then asked for the checked address, and never for a name.
  bool allow_private = true;
  std::string proxy;  ///< as the option has it; empty: what the environment says
  std::string user;   ///< basic authentication
  std::string password;
  std::size_t max_response_bytes = 64 * 1024;
};

struct Request {
  std::string method = "POST";
  std::string url;  ///< http or https; without credentials
  Headers headers;
  std::string_view body;   ///< must outlive the request, unless `owned_body` is set
  std::string owned_body;  ///< goes before `body` where it is not empty
  std::chrono::milliseconds timeout{10000};
  std::string error_header;  ///< the response header to be kept in Response::error_header
  bool direct = false;       ///< never through a proxy
};

struct Response {
  std::size_t token = 0;  ///< as given to `start`
  int status = 0;         ///< 0: there was no response, and `error` says why
  std::string body;       ///< at most `max_response_bytes`; what is beyond is not read
  bool truncated = false;
  std::chrono::milliseconds retry_after{0};  ///< what Retry-After says; 0: nothing
  std::string error_header;
  SharedError error;
};

/// Sends HTTP requests, many at a time, over connections that it keeps, through a proxy where one
/// is configured. One thread. It follows no redirect, sends no cookie, and verifies certificates
/// unless told otherwise. Errors: transient (name not resolvable, connection refused, cut or timed
/// out), misconfigured (certificate not trusted, address not allowed, a file of ours that cannot be
/// read, a proxy that refuses). Messages name scheme, host and port only.
class Client {
 public:
  /// Its connections end with the lease, and there are no new ones without it.
  explicit Client(ClientOptions options, Lease& lease = Lease::endless());
  ~Client();
  Client(const Client&) = delete;

  /// Begins a request; it goes on within `wait`.
  void start(std::size_t token, Request request);
  std::size_t in_flight() const;

  /// Waits for at least one response; appends those that are there to `responses`. Appends nothing
  /// when the deadline passed, a stop was asked for or nothing is in flight.
  void wait(std::vector<Response>& responses, Deadline deadline, std::stop_token stop);

  /// Gives up everything in flight; keeps idle connections.
  void cancel_all();

  /// One request alone. An error: there was no response, or (cancelled) a stop was asked for.
  Result<Response> fetch(Request request, Deadline deadline, std::stop_token stop);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace relay::http
