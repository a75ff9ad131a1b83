#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "admin/lane.h"
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

/// Answers one request. An exception becomes status 500.
using Handler = std::function<HttpResponse(const HttpRequest&)>;

/// What a server answers with, and how its requests are kept from waiting for each other.
struct HttpService {
  Handler handler;
  std::vector<Lane> lanes = {Lane{}};
  /// The lane whose worker calls the handler, by its index. None: the thread that serves all
  /// connections calls it, so it must neither wait nor compute. Called on that thread.
  std::function<std::optional<std::size_t>(const HttpRequest&)> lane_of = [](const HttpRequest&) {
    return std::optional<std::size_t>(0);
  };
  /// For a request that finds its lane full, or gets no answer in time. Retry-After is added.
  HttpResponse busy{503, "text/plain; charset=utf-8", "busy\n", {}};
};

/// What a client may ask of a server.
struct HttpLimits {
  std::uint32_t header_bytes = 8 * 1024;
  std::uint64_t body_bytes = 16 * 1024;
  /// Where there are more, the one that has been in its state longest is closed. A quarter of the
  /// descriptors that the process may have is the most in any case.
  std::size_t connections = 512;
  std::size_t unread_bytes = 32u << 20;       ///< of answers that clients have not taken yet
  std::chrono::milliseconds request{5'000};   ///< from a request's first byte to its last
  std::chrono::milliseconds idle{30'000};     ///< between requests
  std::chrono::milliseconds worker{1'000};    ///< until a worker begins with a request
  std::chrono::milliseconds answer{5'000};    ///< until it has answered
  std::chrono::milliseconds sending{10'000};  ///< until the client has taken the answer
};

/// A small HTTP/1.1 server: keep-alive, pipelining, HEAD, and limits on everything that a client
/// can choose. Malformed input is answered with 400, a header or body that is too large with 431 or
/// 413; a connection that is too slow is closed.
///
/// One thread serves all connections, and never waits: no client, no handler in a lane, and no lack
/// of descriptors elsewhere in the process keeps it from answering a new connection.
class HttpServer {
 public:
  /// "0.0.0.0:9090", "[::1]:0", "127.0.0.1:0" (a free port). Misconfigured: the address is taken or
  /// cannot be read.
  static Result<std::unique_ptr<HttpServer>> start(std::string_view address, HttpService service,
                                                   HttpLimits limits = {});
  /// Stops.
  ~HttpServer();

  int port() const;
  /// Ends all connections, and waits for handlers that are answering. Any thread but the
  /// handler's; does nothing when called again.
  void stop();

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace relay::admin
