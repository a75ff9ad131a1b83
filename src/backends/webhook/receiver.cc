#include "backends/webhook/receiver.h"

#include <fcntl.h>
#include <fmt/core.h>

#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <thread>

#include "backends/webhook/receiver_connection.h"
#include "core/log.h"

namespace relay::webhook {

namespace asio = boost::asio;
namespace ssl = asio::ssl;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;

namespace {

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);
constexpr milliseconds kStopTime{2000};     // for the answers that a stop gives
constexpr std::size_t kRefusedAtOnce = 64;  // connections beyond the limit that are told so

// A program that the relay starts must not keep its port.
template <class Socket>
void close_on_exec(Socket& socket) {
  ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
}

/// TLS 1.2 and 1.3; null where the options ask for none.
Result<std::unique_ptr<ssl::context>> make_tls(const ReceiverOptions& options) {
  if (options.tls_cert.empty()) return std::unique_ptr<ssl::context>();
  auto context = std::make_unique<ssl::context>(ssl::context::tls_server);
  context->set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 |
                       ssl::context::no_sslv3 | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1);
  const auto refusal = [](std::string_view option, const std::string& file, error_code error) {
    return fail(ErrorClass::misconfigured, "tls_files",
                fmt::format("{}: {} cannot be used: {}", option, file, error.message()),
                "give PEM files that the relay may read, and a key that fits the certificate");
  };
  error_code error;
  context->use_certificate_chain_file(options.tls_cert, error);
  if (error) return refusal("tls_cert", options.tls_cert, error);
  context->use_private_key_file(options.tls_key, ssl::context::pem, error);
  if (error) return refusal("tls_key", options.tls_key, error);
  if (!options.tls_ca.empty()) {
    context->load_verify_file(options.tls_ca, error);
    if (error) return refusal("tls_ca", options.tls_ca, error);
    context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert, error);
  }
  return context;
}

error_code bind(tcp::acceptor& acceptor, const ReceiverOptions& options) {
  error_code error;
  const tcp::endpoint endpoint(asio::ip::make_address(options.host, error), options.port);
  if (!error) acceptor.open(endpoint.protocol(), error);
  if (!error) close_on_exec(acceptor);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  return error;
}

Error cannot_listen(const ReceiverOptions& options, error_code error) {
  return misconfigured("listen",
                       fmt::format("cannot listen on {}: {}", options.listen, error.message()),
                       "choose another address with listen, or end what uses this one");
}

}  // namespace

struct Receiver::Impl {
  Impl(const ReceiverOptions& options, RequestQueue& queue) : reception(options, queue) {}

  Result<void> listen() {
    auto made = make_tls(reception.options);
    if (!made) return fail(made.error());
    tls = std::move(*made);
    error_code error = bind(acceptor, reception.options);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) return fail(cannot_listen(reception.options, error));
    return {};
  }

  asio::awaitable<void> accept() {
    while (!reception.stopping) {
      auto [error, socket] = co_await acceptor.async_accept(kNoThrow);
      if (reception.stopping) co_return;
      if (error) {
        // Out of descriptors, say: others will end theirs.
        asio::steady_timer pause(reception.io, milliseconds(100));
        co_await pause.async_wait(kNoThrow);
        continue;
      }
      error_code ignored;
      close_on_exec(socket);
      socket.set_option(tcp::no_delay(true), ignored);
      const bool too_many = reception.connections.size() >= reception.options.max_connections;
      if (too_many && (tls || reception.connections.size() >=
                                  reception.options.max_connections + kRefusedAtOnce)) {
        continue;  // the socket ends here
      }
      spawn(std::move(socket), too_many);
    }
  }

  void spawn(tcp::socket socket, bool too_many) {
    const auto ended = [](std::exception_ptr failure) {
      try {
        if (failure) std::rethrow_exception(failure);
      } catch (const std::exception& exception) {
        log::error("http", "", "a connection ended: {}", exception.what());
      }
    };
    if (too_many) {
      asio::co_spawn(reception.io, turn_away(reception, std::move(socket)), ended);
    } else if (tls) {
      asio::co_spawn(reception.io,
                     serve(reception, ssl::stream<tcp::socket>(std::move(socket), *tls)), ended);
    } else {
      asio::co_spawn(reception.io, serve(reception, std::move(socket)), ended);
    }
  }

  /// Lets every coroutine run to its end, so that none is left when the loop is.
  void stop() {
    if (!thread.joinable()) return;  // it never listened
    asio::post(reception.io, [this] {
      reception.stopping = true;
      error_code ignored;
      acceptor.close(ignored);
      reception.give_up_open();
      for (const auto& connection : reception.connections) {
        if (!connection->answering) connection->end();
      }
      if (reception.connections.empty()) return;
      reception.last_resort.expires_after(kStopTime);
      reception.last_resort.async_wait([this](error_code error) {
        if (error) return;
        for (const auto& connection : reception.connections) connection->end();
      });
    });
    thread.join();
  }

  void run() {
    while (true) {
      try {
        reception.io.run();
        return;
      } catch (const std::exception& exception) {
        log::error("http", reception.options.pipeline, "the receiver: {}", exception.what());
      }
    }
  }

  Reception reception;
  std::unique_ptr<ssl::context> tls;
  tcp::acceptor acceptor{reception.io};
  std::thread thread;
};

Receiver::Receiver(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Receiver::~Receiver() {
  impl_->stop();
}

void Receiver::settle(std::int64_t number) {
  impl_->reception.queue.settle(number, SteadyClock::now());
  asio::post(impl_->reception.io,
             [impl = impl_.get(), number] { impl->reception.settle_open(number); });
}

void Receiver::give_up_open() {
  asio::post(impl_->reception.io, [impl = impl_.get()] { impl->reception.give_up_open(); });
}

Result<std::unique_ptr<Receiver>> Receiver::start(const ReceiverOptions& options,
                                                  RequestQueue& queue) {
  auto impl = std::make_unique<Impl>(options, queue);
  if (auto listening = impl->listen(); !listening) return fail(std::move(listening.error()));
  asio::co_spawn(impl->reception.io, impl->accept(), asio::detached);
  impl->thread = std::thread([&of = *impl] { of.run(); });
  return std::unique_ptr<Receiver>(new Receiver(std::move(impl)));
}

Result<void> Receiver::could_start(const ReceiverOptions& options) {
  if (const auto tls = make_tls(options); !tls) return fail(tls.error());
  asio::io_context io;
  tcp::acceptor acceptor(io);
  const error_code error = bind(acceptor, options);
  // What has the address may be the running relay.
  if (!error || error == asio::error::address_in_use) return {};
  return fail(cannot_listen(options, error));
}

}  // namespace relay::webhook
