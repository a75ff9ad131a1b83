#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/tls.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/lease.h"

struct curl_slist;

namespace relay::http {

/// The headers of one request.
class Headers {
 public:
  Headers() = default;
  Headers(Headers&& other) noexcept : list_(other.list_) { other.list_ = nullptr; }
  Headers& operator=(Headers&& other) noexcept {
    std::swap(list_, other.list_);
    return *this;
  }
  ~Headers();

  /// The name and the value must pass `is_header_name` and `is_header_value` (assert).
  void add(std::string_view name, std::string_view value);

 private:
  friend class Client;
  curl_slist* list_ = nullptr;
};

/// A name that HTTP allows (a token).
bool is_header_name(std::string_view name);
/// A value that cannot end a header line: no control characters but the tab.
bool is_header_value(std::string_view value);

/// The defaults are those of a client that no table of options fills, such as the one that asks for
/// credentials.
struct ClientOptions : config::TlsOptions {
  std::size_t max_connections = 16;
  std::chrono::milliseconds connect_timeout{5000};
  /// False: a connection to an address that is not public is refused, whatever name it came from.
  bool allow_private = true;
  std::string user;  ///< basic authentication
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

/// Sends HTTP requests, many at a time, over connections that it keeps. One thread. It follows no
/// redirect, uses no proxy, sends no cookie, and verifies certificates unless told otherwise.
/// Errors: transient (name not resolvable, connection refused, cut or timed out), misconfigured
/// (certificate not trusted, address not allowed, a file of ours that cannot be read). Messages
/// name scheme, host and port only.
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
