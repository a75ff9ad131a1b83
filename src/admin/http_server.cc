#include "admin/http_server.h"

#include <fmt/core.h>
#include <sys/resource.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "core/shortage.h"
#include "http/server/listen_address.h"

namespace relay::admin {

namespace {

// What the system keeps for a client that sends and does not read.
constexpr int kSocketBuffer = 64 * 1024;
// A client that sends requests without waiting for answers is slowed down: it could keep the
// server's thread busy otherwise.
constexpr std::chrono::milliseconds kBeforePipelined{20};
// No more than this part of what the process may have.
constexpr std::size_t kReservedDescriptors = 64;
constexpr std::size_t kReservedPart = 16;
// However few descriptors the process may have.
constexpr std::size_t kFewestConnections = 8;

/// How many descriptors the process may have.
std::size_t most_descriptors() {
  rlimit descriptors{};
  if (::getrlimit(RLIMIT_NOFILE, &descriptors) != 0) return std::numeric_limits<std::size_t>::max();
  return descriptors.rlim_cur;
}

/// At most a quarter of the process's descriptors: pipelines need the rest.
std::size_t most_connections(std::size_t wanted) {
  return std::min(wanted, std::max(most_descriptors() / 4, kFewestConnections));
}

tl::unexpected<Error> bad_address(std::string_view address, std::string_view why) {
  return fail(ErrorClass::misconfigured, "address", fmt::format("\"{}\" {}", address, why),
              "Write it as --metrics-addr 127.0.0.1:9090, or [::1]:9090.");
}

Error cannot_listen(std::string_view address, const Error& error) {
  Error refused{
      ErrorClass::transient,
      "address",
      fmt::format("metrics and health cannot be served on {}: {}", address, error.message),
      "Choose another address with --metrics-addr, or end what uses this one.",
      {}};
  refused = shortage::explained(std::move(refused));
  if (refused.code == "address") refused.error_class = ErrorClass::misconfigured;
  return refused;
}

}  // namespace

HttpLimits::HttpLimits() {
  unread_bytes = 32u << 20;
  descriptors_in_reserve = std::min(kReservedDescriptors, most_descriptors() / kReservedPart);
  socket_buffer = kSocketBuffer;
  before_pipelined = kBeforePipelined;
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(std::string_view address, HttpService service,
                                                      HttpLimits limits) {
  const auto where = http::split_listen_address(address);
  if (!where) return bad_address(address, "names no port");
  if (!where->is_ip()) return bad_address(address, "does not begin with an IP address");
  const auto port = where->port_number();
  if (!port) return bad_address(address, "does not end with a port");
  limits.connections = most_connections(limits.connections);
  std::unique_ptr<HttpServer> made(new HttpServer(std::move(service), limits));
  auto server = http::Server::listen(where->host, *port, made->service_, {limits, {}, {}});
  if (!server) return fail(cannot_listen(address, server.error()));
  made->server_ = std::move(*server);
  made->service_.serve_on(*made->server_);
  made->server_->start();
  return made;
}

HttpServer::~HttpServer() {
  stop();
}

void HttpServer::stop() {
  const MutexLock lock(stop_mutex_);
  if (server_) server_->stop();
  service_.join();
}

}  // namespace relay::admin
