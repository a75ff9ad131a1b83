#include "http/server/server.h"

#include <fcntl.h>

#include <boost/asio.hpp>
#include <exception>
#include <thread>

#include "core/log.h"
#include "core/mutex.h"
#include "core/shortage.h"
#include "http/server/connection.h"
#include "http/server/session.h"
#include "http/server/tls_context.h"

namespace relay::http {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

// Between two lots the other connections have their turn.
constexpr int kAcceptedTogether = 16;
// A client that has connected has so long to send its request before its connection may be closed
// for another one.
constexpr std::chrono::milliseconds kKept{25};
// Connections beyond the limit that are told so at the same time.
constexpr std::size_t kTurnedAwayTogether = 64;

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);

// A program that the relay starts must not keep its port.
template <class Socket>
void close_on_exec(Socket& socket) {
  ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
}

bool is_descriptor_shortage(error_code error) {
  return error == asio::error::no_descriptors || error.value() == ENFILE;
}

error_code bind(tcp::acceptor& acceptor, const std::string& host, std::uint16_t port,
                int socket_buffer) {
  error_code error;
  const tcp::endpoint endpoint(asio::ip::make_address(host, error), port);
  if (!error) acceptor.open(endpoint.protocol(), error);
  if (!error) close_on_exec(acceptor);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (socket_buffer > 0) {
    // Connections inherit them.
    if (!error) acceptor.set_option(asio::socket_base::receive_buffer_size(socket_buffer), error);
    if (!error) acceptor.set_option(asio::socket_base::send_buffer_size(socket_buffer), error);
  }
  if (!error) acceptor.bind(endpoint, error);
  return error;
}

tl::unexpected<Error> cannot_listen(error_code error) {
  return fail(ErrorClass::transient, "listen", error.message(), {});
}

}  // namespace

struct Server::Impl {
  Impl(Service& service, ServerOptions options)
      : premises(service, options.limits), pipeline(std::move(options.pipeline)) {}

  /// Clients are accepted again where that ended by an exception, such as for want of memory.
  void keep_accepting() {
    asio::co_spawn(premises.io, accept(), [this](std::exception_ptr failure) {
      if (!failure || premises.stopping) return;
      tell(failure, "accepting connections");
      keep_accepting();
    });
  }

  asio::awaitable<void> accept() {
    while (!premises.stopping) {
      const auto [error] = co_await acceptor.async_wait(tcp::acceptor::wait_read, kNoThrow);
      if (premises.stopping) co_return;
      if (!error && accept_some()) continue;
      asio::steady_timer pause(premises.io, premises.limits.before_accepting);
      co_await pause.async_wait(kNoThrow);
    }
  }

  bool is_full() const { return premises.connections.size() >= premises.limits.connections; }
  /// False: no connection may be closed for a new one.
  bool make_room() {
    return premises.limits.when_full == WhenFull::close_oldest &&
           premises.connections.close_first(kKept);
  }

  /// Accepts what waits, up to a limit. False: nothing can be accepted for now.
  bool accept_some() {
    for (int i = 0; i < kAcceptedTogether; ++i) {
      if (is_full() && premises.limits.when_full == WhenFull::close_oldest) {
        if (i > 0) return true;  // whether one waits is known of the first one only
        if (!make_room()) return false;
      }
      error_code error;
      tcp::socket socket = acceptor.accept(error);
      if (error == asio::error::would_block) return true;
      if (error == asio::error::connection_aborted) continue;
      if (is_descriptor_shortage(error)) {
        if (!premises.reserve.release_one() && !make_room()) return false;
        continue;
      }
      if (error) return false;
      close_on_exec(socket);
      socket.set_option(tcp::no_delay(true), error);
      begin(std::move(socket));
    }
    return true;
  }

  void begin(tcp::socket socket) {
    const auto ended = [this](std::exception_ptr failure) {
      if (failure) tell(failure, "serving a connection");
    };
    if (!is_full()) {
      asio::co_spawn(premises.io, serve(premises, std::move(socket), tls.get()), ended);
    } else if (!tls &&
               premises.connections.size() < premises.limits.connections + kTurnedAwayTogether) {
      asio::co_spawn(premises.io, turn_away(premises, std::move(socket)), ended);
    }
  }

  void tell(std::exception_ptr failure, std::string_view doing) const {
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& exception) {
      log::failure("http", pipeline, shortage::error_of(exception, doing));
    }
  }

  void run() {
    while (true) {
      try {
        premises.io.run();
        return;
      } catch (const std::exception& exception) {
        log::failure("http", pipeline, shortage::error_of(exception, "serving connections"));
      }
    }
  }

  /// Lets every coroutine run to its end, so that none is left when the loop is.
  void begin_to_stop() {
    premises.stopping = true;
    error_code ignored;
    acceptor.close(ignored);
    premises.service.stopping();
    const bool spare = premises.limits.stop.count() > 0;
    premises.connections.close_where([spare](const ListedConnection& one) {
      return !spare || !static_cast<const Connection&>(one).is_answering();
    });
    if (premises.connections.size() == 0) return;
    premises.last_resort.expires_after(premises.limits.stop);
    premises.last_resort.async_wait([this](error_code error) {
      if (!error) premises.connections.close_where([](const ListedConnection&) { return true; });
    });
  }

  Premises premises;
  const std::string pipeline;
  std::unique_ptr<asio::ssl::context> tls;
  tcp::acceptor acceptor{premises.io};
  int port = 0;
  Mutex stop_mutex;
  std::thread thread RELAY_GUARDED_BY(stop_mutex);
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() {
  stop();
}

Result<std::unique_ptr<Server>> Server::listen(const std::string& host, std::uint16_t port,
                                               Service& service, ServerOptions options) {
  auto tls = make_tls(options.tls);
  if (!tls) return fail(std::move(tls.error()));
  auto impl = std::make_unique<Impl>(service, std::move(options));
  impl->tls = std::move(*tls);
  tcp::acceptor& acceptor = impl->acceptor;
  error_code error = bind(acceptor, host, port, impl->premises.limits.socket_buffer);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (!error) acceptor.non_blocking(true, error);
  if (error) return cannot_listen(error);
  impl->port = acceptor.local_endpoint().port();
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Result<void> Server::could_listen(const std::string& host, std::uint16_t port,
                                  const TlsFiles& files) {
  if (const auto tls = make_tls(files); !tls) return fail(tls.error());
  asio::io_context io;
  tcp::acceptor acceptor(io);
  const error_code error = bind(acceptor, host, port, 0);
  // What has the address may be the running relay.
  if (!error || error == asio::error::address_in_use) return {};
  return cannot_listen(error);
}

void Server::start() {
  impl_->keep_accepting();
  const MutexLock lock(impl_->stop_mutex);
  impl_->thread = std::thread([&of = *impl_] { of.run(); });
}

int Server::port() const {
  return impl_->port;
}

void Server::post(std::function<void()> function) {
  asio::post(impl_->premises.io, std::move(function));
}

void Server::stop() {
  const MutexLock lock(impl_->stop_mutex);
  if (!impl_->thread.joinable()) return;
  asio::post(impl_->premises.io, [impl = impl_.get()] { impl->begin_to_stop(); });
  impl_->thread.join();
}

}  // namespace relay::http
