#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"

namespace relay::admin {

struct HttpRequest {
  std::string method;                          ///< "GET"
  std::string target;                          ///< as sent: "/health?verbose=1"
  std::string path;                            ///< decoded, without the query
  std::map<std::string, std::string> query;    ///< decoded
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string body;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

/// Answers one request. Called on a worker thread of the server, one request at a time, so that it
/// may take its time without holding up the connections of others. An exception becomes status 500.
using Handler = std::function<HttpResponse(const HttpRequest&)>;

/// What a client may ask of a server.
struct HttpLimits {
  std::uint32_t header_bytes = 8 * 1024;
  std::uint64_t body_bytes = 1024 * 1024;
  std::size_t connections = 256;              ///< one more is closed at once
  std::chrono::milliseconds request{10'000};  ///< from a request's first byte to its last
  std::chrono::milliseconds idle{60'000};     ///< between requests
};

/// A small HTTP/1.1 server: keep-alive, pipelining, HEAD, and limits on everything that a client
/// can choose. Malformed input is answered with 400, a header or body that is too large with 431 or
/// 413; a connection that is too slow is closed. One thread serves all connections, another one
/// calls the handler.
class HttpServer {
 public:
  /// "0.0.0.0:9090", "[::1]:0", "127.0.0.1:0" (a free port). Misconfigured: the address is taken or
  /// cannot be read.
  static Result<std::unique_ptr<HttpServer>> start(std::string_view address, Handler handler,
                                                   HttpLimits limits = {});
  /// Stops.
  ~HttpServer();

  int port() const;
  /// Ends all connections, and waits for the handler if it is answering. Any thread but the
  /// handler's; does nothing when called again.
  void stop();

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace relay::admin
