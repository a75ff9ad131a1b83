#pragma once

#include <chrono>
#include <memory>
#include <string_view>

#include "core/error.h"
#include "core/mutex.h"
#include "http/server/lane_service.h"
#include "http/server/server.h"

namespace relay::admin {

using HttpRequest = http::DecodedRequest;
using HttpResponse = http::Answer;
using HttpService = http::LaneRules;
using http::Handler;
using http::Lane;

/// Where there are more connections, the one that has been in its state longest is closed. A
/// quarter of the descriptors that the process may have is the most in any case.
struct HttpLimits : http::ServerLimits, http::LaneLimits {
  HttpLimits();
};

/// The server of health, metrics and the API, and the workers that call its handler. Malformed
/// input is answered with 400, a header or body that is too large with 431 or 413; a connection
/// that is too slow is closed. No client, no handler in a lane, and no lack of descriptors
/// elsewhere in the process keeps it from answering a new connection.
class HttpServer {
 public:
  /// "0.0.0.0:9090", "[::1]:0", "127.0.0.1:0" (a free port). Misconfigured: the address is taken or
  /// cannot be read.
  static Result<std::unique_ptr<HttpServer>> start(std::string_view address, HttpService service,
                                                   HttpLimits limits = {});
  /// Stops.
  ~HttpServer();

  int port() const { return server_->port(); }
  /// Ends all connections, and waits for handlers that are answering. Any thread but the
  /// handler's; does nothing when called again.
  void stop();

 private:
  HttpServer(HttpService service, HttpLimits limits)
      : service_(std::move(service), std::move(limits)) {}

  Mutex stop_mutex_;
  http::LaneService service_;
  std::unique_ptr<http::Server> server_;  // ends before the service that answers for it
};

}  // namespace relay::admin
