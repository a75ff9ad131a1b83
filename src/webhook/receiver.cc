#include "webhook/receiver.h"

#ifdef __SANITIZE_THREAD__
// The thread sanitizer knows no fences; Asio's queues are guarded by mutexes beside them.
#define BOOST_ASIO_DISABLE_FENCED_BLOCK
#endif

#include <fcntl.h>

#include <array>
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <map>
#include <optional>
#include <set>
#include <thread>

#include "core/log.h"
#include "webhook/receiver_gate.h"
#include "webhook/receiver_tls.h"

namespace relay::webhook {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace ssl = asio::ssl;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;

namespace {

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);

// What is still on its way when a request was refused is read for so long, and dropped: closing
// with unread input would take the answer from the client.
constexpr milliseconds kLinger{2000};
constexpr milliseconds kStopTime{2000};  // for the answers that a stop gives
constexpr std::size_t kReadAhead = 64 * 1024;
constexpr std::size_t kRefusedAtOnce = 64;  // connections beyond the limit that are told so

using Parser = http::request_parser<http::string_body>;
using Response = http::response<http::string_body>;
using Plain = tcp::socket;
using Secure = ssl::stream<tcp::socket>;

tcp::socket& socket_of(Plain& stream) {
  return stream;
}
tcp::socket& socket_of(Secure& stream) {
  return stream.next_layer();
}

/// One connection, as its timer and a stop see it. Of the server's thread.
struct Connection {
  Connection(asio::io_context& io, tcp::socket& of) : timer(io), socket(&of) {}
  asio::steady_timer timer;
  tcp::socket* socket;     // null when its coroutine has ended
  bool late = false;       // the step under way has taken too long
  bool answering = false;  // a request is complete, and its answer is not sent yet

  void end() {
    error_code ignored;
    if (socket) socket->close(ignored);
  }
};
using Shared = std::shared_ptr<Connection>;

/// Ends what the connection is waiting for when the time is over; the connection stays, so that an
/// answer can be sent.
void allow(const Shared& connection, milliseconds time) {
  connection->late = false;
  connection->timer.expires_after(time);
  connection->timer.async_wait([connection](error_code error) {
    // Armed again meanwhile, or over.
    if (error || !connection->socket || connection->timer.expiry() > SteadyClock::now()) return;
    error_code ignored;
    connection->late = true;
    connection->socket->cancel(ignored);
  });
}

/// A request whose answer waits for the pipeline.
struct Open {
  enum class Fate { open, settled, given_up };
  asio::steady_timer timer;
  Fate fate = Fate::open;
};

/// What came of waiting for a request.
struct Incoming {
  bool gone = false;         ///< the client is; nothing is to be answered
  bool rest_unread = false;  ///< the connection cannot be used again
  bool keep_alive = false;
  bool head = false;
  ReceivedRequest request;
  std::size_t reserved = 0;
  std::optional<Refusal> refusal;
};

Response make_response(Answer answer, const Incoming& incoming) {
  Response response{static_cast<http::status>(answer.status), 11};
  response.set(http::field::content_type, "application/json");
  for (const auto& [name, value] : answer.headers) response.set(name, value);
  response.keep_alive(incoming.keep_alive && !incoming.rest_unread);
  response.content_length(answer.body.size());
  if (!incoming.head) response.body() = std::move(answer.body);
  return response;
}

/// Why bytes are no request; nothing where the client went away.
std::optional<Refusal> malformed(error_code error) {
  if (error == http::error::end_of_stream || error == http::error::partial_message ||
      error.category() != make_error_code(http::error::bad_method).category()) {
    return std::nullopt;
  }
  if (error == http::error::body_limit) return Refusal{413, "too_large", "the body is too large"};
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return Refusal{431, "header_too_large", "the head of the request is too large"};
  }
  return Refusal{400, "malformed", error.message()};
}

void read_fields(const Parser& parser, ReceivedRequest& request) {
  const auto& raw = parser.get();
  request.method = std::string(raw.method_string());
  request.target = std::string(raw.target());
  for (const auto& field : raw) {
    request.headers.emplace_back(lower_case(field.name_string()), std::string(field.value()));
  }
}

// A program that the relay starts must not keep its port.
template <class Socket>
void close_on_exec(Socket& socket) {
  ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
}

}  // namespace

struct Receiver::Impl {
  Impl(const ReceiverOptions& of, RequestQueue& to) : options(of), queue(to), acceptor(io) {}

  Result<void> listen() {
    auto made = make_tls(options);
    if (!made) return fail(made.error());
    tls = std::move(*made);
    error_code error;
    const tcp::endpoint endpoint(asio::ip::make_address(options.host, error), options.port);
    if (!error) acceptor.open(endpoint.protocol(), error);
    if (!error) close_on_exec(acceptor);
    if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      return fail(ErrorClass::misconfigured, "listen",
                  fmt::format("cannot listen on {}: {}", options.listen, error.message()),
                  "choose another address with listen, or end what uses this one");
    }
    return {};
  }

  asio::awaitable<void> accept() {
    while (!stopping) {
      auto [error, socket] = co_await acceptor.async_accept(kNoThrow);
      if (stopping) co_return;
      if (error) {
        // Out of descriptors, say: others will end theirs.
        asio::steady_timer pause(io, milliseconds(100));
        co_await pause.async_wait(kNoThrow);
        continue;
      }
      error_code ignored;
      close_on_exec(socket);
      socket.set_option(tcp::no_delay(true), ignored);
      const bool too_many = connections.size() >= options.max_connections;
      if (too_many && (tls || connections.size() >= options.max_connections + kRefusedAtOnce)) {
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
    if (tls) {
      asio::co_spawn(io, serve(Secure(std::move(socket), *tls), false), ended);
    } else {
      asio::co_spawn(io, serve(Plain(std::move(socket)), too_many), ended);
    }
  }

  /// One connection from its beginning to its end.
  template <class Stream>
  asio::awaitable<void> serve(Stream stream, bool too_many) {
    struct Registered {
      Impl& impl;
      Shared connection;
      ~Registered() { impl.forget(connection); }
    };
    const auto connection = std::make_shared<Connection>(io, socket_of(stream));
    connections.insert(connection);
    const Registered registered{*this, connection};
    if (stopping) co_return;
    if constexpr (std::is_same_v<Stream, Secure>) {
      allow(connection, options.request_timeout);
      const auto [error] = co_await stream.async_handshake(ssl::stream_base::server, kNoThrow);
      if (error) co_return;
    }
    if (too_many) {
      Incoming unread;
      unread.rest_unread = true;
      co_await answer(stream, connection,
                      make_response(refused(not_now("too many connections"), {}), unread));
      co_await linger(stream, connection);
      co_return;
    }
    beast::flat_buffer buffer(options.max_header_bytes + kReadAhead);
    while (!stopping && co_await serve_one(stream, connection, buffer)) continue;
    if (!stopping) co_await say_goodbye(stream, connection);
  }

  /// One request and its answer. False: the connection is at its end.
  template <class Stream>
  asio::awaitable<bool> serve_one(Stream& stream, const Shared& connection,
                                  beast::flat_buffer& buffer) {
    Incoming incoming = co_await receive(stream, connection, buffer);
    if (incoming.gone) co_return false;
    connection->answering = true;
    if (!incoming.refusal) incoming.refusal = co_await settle_one(incoming);
    if (incoming.reserved > 0) queue.give_back(incoming.reserved);
    if (stopping) incoming.keep_alive = false;
    Response response = make_response(
        incoming.refusal ? refused(*incoming.refusal, options.auth.challenge()) : committed(),
        incoming);
    const bool alive = response.keep_alive();
    const bool sent = co_await answer(stream, connection, std::move(response));
    connection->answering = false;
    if (sent && incoming.rest_unread) co_await linger(stream, connection);
    co_return sent&& alive;
  }

  /// Hands the request to the pipeline, and waits until it is settled.
  asio::awaitable<std::optional<Refusal>> settle_one(Incoming& incoming) {
    incoming.request.received =
        std::chrono::time_point_cast<Timestamp::duration>(std::chrono::system_clock::now());
    if (stopping) co_return not_now("the receiver is stopping");
    if (auto wrong = gate.whole(incoming.request, std::chrono::system_clock::now())) {
      co_return wrong;
    }
    const std::size_t head = incoming.request.head_bytes();
    if (!queue.reserve(head)) co_return not_now("too many bytes wait to be committed");
    incoming.reserved += head;
    const auto number = queue.add(std::move(incoming.request), incoming.reserved);
    if (!number) co_return not_now("nothing can be committed at the moment");
    incoming.reserved = 0;
    Open one{asio::steady_timer(io, options.response_timeout)};
    open.emplace(*number, &one);
    co_await one.timer.async_wait(kNoThrow);
    open.erase(*number);
    if (one.fate == Open::Fate::settled) co_return std::nullopt;
    if (one.fate == Open::Fate::open) queue.abandon(*number);
    co_return not_now("the message is not committed yet; send it again with the same id");
  }

  template <class Stream>
  asio::awaitable<Incoming> receive(Stream& stream, const Shared& connection,
                                    beast::flat_buffer& buffer) {
    Incoming incoming;
    incoming.rest_unread = true;
    if (buffer.size() == 0) {
      // Waiting for the next request may take long; sending one may not.
      allow(connection, options.idle_timeout);
      const auto [error, size] = co_await stream.async_read_some(buffer.prepare(4096), kNoThrow);
      incoming.gone = static_cast<bool>(error);
      if (error) co_return incoming;
      buffer.commit(size);
    }
    allow(connection, options.request_timeout);
    Parser parser;
    parser.header_limit(static_cast<std::uint32_t>(options.max_header_bytes));
    parser.body_limit(options.max_body_bytes);
    const auto [error, size] = co_await http::async_read_header(stream, buffer, parser, kNoThrow);
    if (error) co_return broken_off(std::move(incoming), error, *connection);
    read_fields(parser, incoming.request);
    incoming.keep_alive = parser.get().keep_alive();
    incoming.head = parser.get().method() == http::verb::head;
    const Framing framing{parser.get().version() < 11, parser.content_length().has_value(),
                          parser.chunked()};
    incoming.refusal = gate.head(incoming.request, framing, SteadyClock::now());
    if (incoming.refusal) {
      incoming.rest_unread = !parser.is_done();
      co_return incoming;
    }
    co_return co_await read_body(stream, connection, buffer, parser, std::move(incoming));
  }

  template <class Stream>
  asio::awaitable<Incoming> read_body(Stream& stream, const Shared& connection,
                                      beast::flat_buffer& buffer, Parser& parser,
                                      Incoming incoming) {
    if (beast::iequals(parser.get()[http::field::expect], "100-continue") && !parser.is_done()) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      const asio::const_buffer text(kContinue.data(), kContinue.size());
      const auto [error, size] = co_await asio::async_write(stream, text, kNoThrow);
      if (error) co_return broken_off(std::move(incoming), error, *connection);
    }
    while (!parser.is_done()) {
      const auto [error, size] = co_await http::async_read_some(stream, buffer, parser, kNoThrow);
      const std::size_t more = parser.get().body().size() - incoming.reserved;
      if (queue.reserve(more)) {
        incoming.reserved += more;
      } else {
        incoming.refusal = not_now("too many bytes wait to be committed");
        co_return incoming;
      }
      if (error) co_return broken_off(std::move(incoming), error, *connection);
    }
    incoming.rest_unread = false;
    incoming.request.body = std::move(parser.get().body());
    co_return incoming;
  }

  /// What to answer to a request that did not come to its end.
  Incoming broken_off(Incoming incoming, error_code error, const Connection& connection) {
    incoming.refusal = malformed(error);
    if (!incoming.refusal && connection.late && !stopping) {
      incoming.refusal = Refusal{408, "too_slow", "the request took too long"};
    }
    incoming.gone = !incoming.refusal;
    if (incoming.gone) queue.give_back(std::exchange(incoming.reserved, 0));
    return incoming;
  }

  template <class Stream>
  asio::awaitable<bool> answer(Stream& stream, const Shared& connection, Response response) {
    allow(connection, options.request_timeout);
    http::response_serializer<http::string_body> serializer(response);
    // For HEAD the body is empty, whatever Content-Length says.
    const bool header_only = response.body().empty();
    serializer.split(header_only);
    const auto [error, size] = header_only
                                   ? co_await http::async_write_header(stream, serializer, kNoThrow)
                                   : co_await http::async_write(stream, serializer, kNoThrow);
    co_return !error;
  }

  /// No more is sent; what the client still sends is dropped, for a moment.
  template <class Stream>
  asio::awaitable<void> linger(Stream& stream, const Shared& connection) {
    allow(connection, kLinger);
    tcp::socket& socket = socket_of(stream);
    error_code ignored;
    socket.shutdown(tcp::socket::shutdown_send, ignored);
    std::array<char, 16 * 1024> dropped;
    while (!connection->late && !stopping) {
      const auto [error, size] = co_await socket.async_read_some(asio::buffer(dropped), kNoThrow);
      if (error) co_return;
    }
  }

  template <class Stream>
  asio::awaitable<void> say_goodbye(Stream& stream, const Shared& connection) {
    if constexpr (std::is_same_v<Stream, Secure>) {
      allow(connection, kLinger);
      co_await stream.async_shutdown(kNoThrow);
    }
    error_code ignored;
    socket_of(stream).shutdown(tcp::socket::shutdown_send, ignored);
  }

  void forget(const Shared& connection) {
    connection->socket = nullptr;
    connection->timer.cancel();
    connections.erase(connection);
    if (stopping && connections.empty()) last_resort.cancel();
  }

  void settle_open(std::int64_t number) {
    while (!open.empty() && open.begin()->first <= number) {
      Open& one = *open.begin()->second;
      one.fate = Open::Fate::settled;
      one.timer.cancel();
      open.erase(open.begin());
    }
  }

  void give_up_open() {
    for (const auto& [number, one] : open) {
      one->fate = Open::Fate::given_up;
      one->timer.cancel();
    }
  }

  /// Lets every coroutine run to its end, so that none is left when the loop is.
  void stop() {
    if (!thread.joinable()) return;  // it never listened
    asio::post(io, [this] {
      stopping = true;
      error_code ignored;
      acceptor.close(ignored);
      give_up_open();
      for (const Shared& connection : connections) {
        if (!connection->answering) connection->end();
      }
      if (connections.empty()) return;
      last_resort.expires_after(kStopTime);
      last_resort.async_wait([this](error_code error) {
        if (error) return;
        for (const Shared& connection : connections) connection->end();
      });
    });
    thread.join();
  }

  void run() {
    while (true) {
      try {
        io.run();
        return;
      } catch (const std::exception& exception) {
        log::error("http", options.pipeline, "the receiver: {}", exception.what());
      }
    }
  }

  const ReceiverOptions options;
  RequestQueue& queue;
  const ReceiverGate gate{options, queue};
  asio::io_context io{1};
  std::unique_ptr<ssl::context> tls;
  tcp::acceptor acceptor;
  asio::steady_timer last_resort{io};
  // Of the server's thread:
  bool stopping = false;
  std::set<Shared> connections;
  std::map<std::int64_t, Open*> open;  // requests that wait for their answer
  std::thread thread;
};

Receiver::Receiver(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Receiver::~Receiver() {
  impl_->stop();
}

void Receiver::settle(std::int64_t number) {
  impl_->queue.settle(number, SteadyClock::now());
  asio::post(impl_->io, [impl = impl_.get(), number] { impl->settle_open(number); });
}

void Receiver::give_up_open() {
  asio::post(impl_->io, [impl = impl_.get()] { impl->give_up_open(); });
}

Result<std::unique_ptr<Receiver>> Receiver::start(const ReceiverOptions& options,
                                                  RequestQueue& queue) {
  auto impl = std::make_unique<Impl>(options, queue);
  if (auto listening = impl->listen(); !listening) return fail(std::move(listening.error()));
  asio::co_spawn(impl->io, impl->accept(), asio::detached);
  impl->thread = std::thread([&of = *impl] { of.run(); });
  return std::unique_ptr<Receiver>(new Receiver(std::move(impl)));
}

}  // namespace relay::webhook
