#include "backends/webhook/receiver.h"

#include <fmt/core.h>

#include "backends/webhook/receiver_service.h"
#include "http/server/server.h"

namespace relay::webhook {

namespace {

constexpr std::chrono::milliseconds kStopTime{2000};  // for the answers that a stop gives

http::ServerOptions server_options(const ReceiverOptions& options) {
  http::ServerOptions server;
  server.limits.header_bytes = static_cast<std::uint32_t>(options.max_header_bytes);
  server.limits.body_bytes = options.max_body_bytes;
  server.limits.connections = options.max_connections;
  server.limits.when_full = http::WhenFull::turn_away;
  server.limits.before_accepting = std::chrono::milliseconds(100);
  server.limits.idle = options.idle_timeout;
  server.limits.request = options.request_timeout;
  server.limits.sending = options.request_timeout;
  server.limits.stop = kStopTime;
  server.tls = {options.tls_cert, options.tls_key, options.tls_ca};
  server.pipeline = options.pipeline;
  return server;
}

Error cannot_listen(const ReceiverOptions& options, const Error& error) {
  if (error.code != "listen") return error;
  return misconfigured("listen",
                       fmt::format("cannot listen on {}: {}", options.listen, error.message),
                       "choose another address with listen, or end what uses this one");
}

}  // namespace

struct Receiver::Impl {
  Impl(const ReceiverOptions& options, RequestQueue& of) : queue(of), service(options, of) {}

  RequestQueue& queue;
  ReceiverService service;
  std::unique_ptr<http::Server> server;  // ends before the service that answers for it
};

Receiver::Receiver(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Receiver::~Receiver() = default;

void Receiver::settle(std::int64_t number) {
  impl_->queue.settle(number, SteadyClock::now());
  impl_->server->post([impl = impl_.get(), number] { impl->service.settle(number); });
}

void Receiver::give_up_open() {
  impl_->server->post([impl = impl_.get()] { impl->service.give_up_open(); });
}

Result<std::unique_ptr<Receiver>> Receiver::start(const ReceiverOptions& options,
                                                  RequestQueue& queue) {
  auto impl = std::make_unique<Impl>(options, queue);
  auto server =
      http::Server::listen(options.host, options.port, impl->service, server_options(options));
  if (!server) return fail(cannot_listen(options, server.error()));
  impl->server = std::move(*server);
  impl->server->start();
  return std::unique_ptr<Receiver>(new Receiver(std::move(impl)));
}

Result<void> Receiver::could_start(const ReceiverOptions& options) {
  const auto could = http::Server::could_listen(
      options.host, options.port, {options.tls_cert, options.tls_key, options.tls_ca});
  if (!could) return fail(cannot_listen(options, could.error()));
  return {};
}

}  // namespace relay::webhook
