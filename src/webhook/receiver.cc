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
#include "core/text.h"

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
constexpr std::string_view kRetryAfter = "5";

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

Refusal busy(std::string_view why) {
  return Refusal{503, "unavailable", std::string(why)};
}

std::string body_of(const Refusal& refusal) {
  std::string body = "{\"error\":";
  append_json_string(body, refusal.code);
  body.append(",\"message\":");
  append_json_string(body, refusal.message);
  body.append("}\n");
  return body;
}

Response make_response(unsigned status, std::string body, const Incoming& incoming) {
  Response response{static_cast<http::status>(status), 11};
  response.set(http::field::content_type, "application/json");
  response.keep_alive(incoming.keep_alive && !incoming.rest_unread);
  response.content_length(body.size());
  if (!incoming.head) response.body() = std::move(body);
  return response;
}

Response refuse(const Refusal& refusal, const Incoming& incoming, std::string_view challenge) {
  Response response =
      make_response(static_cast<unsigned>(refusal.status), body_of(refusal), incoming);
  if (refusal.status == 503) response.set(http::field::retry_after, kRetryAfter);
  if (refusal.status == 405) response.set(http::field::allow, "POST, PUT");
  if (refusal.status == 401 && !challenge.empty()) {
    response.set(http::field::www_authenticate, challenge);
  }
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

void read_fields(const http::request<http::string_body>& raw, ReceivedRequest& request) {
  request.method = std::string(raw.method_string());
  request.target = std::string(raw.target());
  for (const auto& field : raw) {
    std::string name(field.name_string());
    for (char& c : name) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    request.headers.emplace_back(std::move(name), std::string(field.value()));
  }
}

/// What HTTP itself asks of a head.
std::optional<Refusal> check_framing(const Parser& parser, const ReceivedRequest& request) {
  if (parser.get().version() >= 11 && !request.header("host")) {
    return Refusal{400, "malformed", "the header Host is missing"};
  }
  const auto coding = request.header("transfer-encoding");
  if (coding && !beast::iequals(*coding, "chunked")) {
    return Refusal{501, "transfer_encoding", "of the transfer codings only chunked is known"};
  }
  return std::nullopt;
}

// A program that the relay starts must not keep its port.
template <class Socket>
void close_on_exec(Socket& socket) {
  ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
}

Result<std::unique_ptr<ssl::context>> make_tls(const ReceiverOptions& options) {
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

}  // namespace

struct Receiver::Impl {
  Impl(const ReceiverOptions& of, RequestQueue& to) : options(of), queue(to), acceptor(io) {}

  Result<void> listen() {
    if (!options.tls_cert.empty()) {
      auto made = make_tls(options);
      if (!made) return fail(made.error());
      tls = std::move(*made);
    }
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
      Incoming refused;
      refused.rest_unread = true;
      refused.refusal = busy("too many connections");
      co_await answer(stream, connection, refuse(*refused.refusal, refused, {}));
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
    Response response = incoming.refusal
                            ? refuse(*incoming.refusal, incoming, options.auth.challenge())
                            : make_response(200, "{\"status\":\"committed\"}\n", incoming);
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
    if (auto wrong = check_complete(incoming.request)) co_return wrong;
    const std::size_t head = incoming.request.head_bytes();
    if (!queue.reserve(head)) co_return busy("too many bytes wait to be committed");
    incoming.reserved += head;
    const std::int64_t number =
        queue.add(std::move(incoming.request), std::exchange(incoming.reserved, 0));
    Open one{asio::steady_timer(io, options.response_timeout)};
    open.emplace(number, &one);
    co_await one.timer.async_wait(kNoThrow);
    open.erase(number);
    if (one.fate == Open::Fate::settled) co_return std::nullopt;
    if (one.fate == Open::Fate::given_up) co_return busy("the receiver is stopping");
    queue.abandon(number);
    co_return busy("the message is not committed yet; send it again with the same id");
  }

  std::optional<Refusal> check_complete(const ReceivedRequest& request) const {
    if (stopping) return busy("the receiver is stopping");
    if (!options.auth.body_allowed(request, std::chrono::system_clock::now())) {
      return unauthorised();
    }
    return check_body(request);
  }

  Refusal unauthorised() const {
    log::failure("unauthorised", options.pipeline,
                 Error{ErrorClass::rejected,
                       "unauthorised",
                       fmt::format("requests to {} are refused with 401", options.listen),
                       "give the clients the secret that auth asks for",
                       {}});
    return Refusal{401, "unauthorised", "authentication is missing or wrong"};
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
    read_fields(parser.get(), incoming.request);
    incoming.keep_alive = parser.get().keep_alive();
    incoming.head = parser.get().method() == http::verb::head;
    incoming.refusal = check_header(parser, incoming.request);
    if (incoming.refusal) {
      incoming.rest_unread = !parser.is_done();
      co_return incoming;
    }
    co_return co_await read_body(stream, connection, buffer, parser, std::move(incoming));
  }

  /// Everything that can be said before a body is read.
  std::optional<Refusal> check_header(const Parser& parser, const ReceivedRequest& request) const {
    if (auto wrong = check_framing(parser, request)) return wrong;
    if (auto wrong = check_head(request, options.path)) return wrong;
    if (!options.auth.head_allowed(request)) return unauthorised();
    if (!parser.content_length() && !parser.chunked()) {
      return Refusal{411, "length_required", "give Content-Length, or send chunks"};
    }
    const auto room = queue.room(SteadyClock::now());
    if (room == RequestQueue::Room::full) return busy("too many messages wait to be committed");
    if (room == RequestQueue::Room::stalled) return busy("nothing can be committed at the moment");
    return std::nullopt;
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
        incoming.refusal = busy("too many bytes wait to be committed");
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

  /// Lets every coroutine run to its end, so that none is left when the loop is.
  void stop() {
    if (!thread.joinable()) return;
    asio::post(io, [this] {
      stopping = true;
      error_code ignored;
      acceptor.close(ignored);
      for (const auto& [number, one] : open) {
        one->fate = Open::Fate::given_up;
        one->timer.cancel();
      }
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
  stop();
}

void Receiver::settle(std::int64_t number) {
  impl_->queue.settle(number, SteadyClock::now());
  asio::post(impl_->io, [impl = impl_.get(), number] { impl->settle_open(number); });
}

void Receiver::stop() {
  impl_->stop();
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
