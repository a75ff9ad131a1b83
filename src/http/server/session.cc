#include "http/server/session.h"

#include <algorithm>
#include <array>
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <type_traits>
#include <utility>

#include "core/text.h"
#include "http/server/connection.h"

namespace relay::http {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;

namespace {

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);

// What is still on its way when a request was refused is read for so long, and dropped: closing
// with unread input would take the answer from the client.
constexpr milliseconds kLinger{2000};
constexpr std::size_t kFirstRead = 4096;
constexpr std::size_t kMostReadAhead = 64 * 1024;

using Parser = http::request_parser<http::string_body>;
using RawResponse = http::response<http::span_body<const char>>;
using Plain = tcp::socket;
using Secure = asio::ssl::stream<tcp::socket>;

tcp::socket& socket_of(Plain& stream) {
  return stream;
}
tcp::socket& socket_of(Secure& stream) {
  return stream.next_layer();
}

/// Bytes of a body that the service has reserved. They are given back unless the request begins.
class Reservation {
 public:
  explicit Reservation(Service& service) : service_(service) {}
  ~Reservation() {
    if (bytes_ > 0) service_.give_back(bytes_);
  }
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;

  /// Reserves what is missing up to `bytes`. False: there is no room.
  bool grow_to(std::size_t bytes) {
    if (bytes == bytes_) return true;
    if (!service_.reserve(bytes - bytes_)) return false;
    bytes_ = bytes;
    return true;
  }
  /// The service accounts for the bytes from now on.
  void hand_over() { bytes_ = 0; }

 private:
  Service& service_;
  std::size_t bytes_ = 0;
};

/// Most bytes that a connection buffers: a head, and what comes behind it.
std::size_t buffer_size(const ServerLimits& limits) {
  return limits.header_bytes + std::min<std::size_t>(limits.body_bytes + 1024, kMostReadAhead);
}

/// What came of waiting for a request.
struct Incoming {
  bool rest_unread = true;  ///< the connection cannot be used again
  bool keep_alive = false;
  bool head = false;
  IncomingRequest request;
  SharedAnswer refusal;
};

/// Its body is that of `answer`, which must outlive it.
RawResponse to_raw(const Answer& answer, bool head, bool keep_alive) {
  RawResponse raw{static_cast<http::status>(answer.status), 11};
  raw.set(http::field::content_type, answer.content_type);
  for (const auto& [name, value] : answer.headers) raw.set(name, value);
  raw.keep_alive(keep_alive);
  raw.content_length(answer.body.size());
  if (!head) raw.body() = {answer.body.data(), answer.body.size()};
  return raw;
}

/// Why bytes are not a request; nothing where the client has gone.
std::optional<Problem> problem_of(error_code error) {
  if (error == http::error::end_of_stream ||
      error.category() != make_error_code(http::error::bad_method).category()) {
    return std::nullopt;
  }
  const auto kind = error == http::error::partial_message ? Problem::Kind::cut_off
                    : error == http::error::body_limit    ? Problem::Kind::body_too_large
                    : error == http::error::header_limit || error == http::error::buffer_overflow
                        ? Problem::Kind::head_too_large
                        : Problem::Kind::malformed;
  return Problem{kind, error.message()};
}

void read_fields(const Parser& parser, IncomingRequest& request) {
  const auto& raw = parser.get();
  request.method = std::string(raw.method_string());
  request.target = std::string(raw.target());
  for (const auto& field : raw) {
    request.headers.emplace_back(lower_case(field.name_string()), std::string(field.value()));
  }
}

/// A connection and what is said over it.
template <class Stream>
class Session {
 public:
  Session(Premises& premises, Stream stream)
      : premises_(premises),
        stream_(std::move(stream)),
        connection_(premises.io, socket_of(stream_)),
        buffer_(buffer_size(premises.limits)) {
    premises_.connections.enter(connection_);
  }
  ~Session() {
    premises_.connections.leave(connection_);
    error_code ignored;
    socket_of(stream_).close(ignored);
    premises_.reserve.refill();
    if (premises_.stopping && premises_.connections.size() == 0) premises_.last_resort.cancel();
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  asio::awaitable<void> serve() {
    // g++ 12 makes wrong code of a co_await behind && in the condition of a loop.
    bool alive = co_await shake_hands();
    if (!alive) co_return;
    while (alive && !premises_.stopping) alive = co_await serve_one();
    if (!premises_.stopping) co_await say_goodbye();
  }

  asio::awaitable<void> turn_away() {
    const SharedAnswer answer =
        premises_.service.refusal({Problem::Kind::too_many_connections, "too many connections"});
    if (!answer) co_return;
    co_await send(*answer, false, false);
    co_await linger();
  }

 private:
  const ServerLimits& limits() const { return premises_.limits; }

  asio::awaitable<bool> shake_hands() {
    if constexpr (std::is_same_v<Stream, Secure>) {
      connection_.allow(limits().request);
      const auto [error] =
          co_await stream_.async_handshake(asio::ssl::stream_base::server, kNoThrow);
      co_return !error;
    }
    co_return true;
  }

  /// One request and its answer. False: the connection is at its end.
  asio::awaitable<bool> serve_one() {
    Incoming incoming;
    bool alive = co_await receive(incoming);
    if (!alive) co_return false;
    connection_.set_answering(true);
    SharedAnswer answer = std::move(incoming.refusal);
    if (!answer) {
      premises_.connections.wait_for_worker(connection_);
      answer = co_await connection_.ask(premises_.service, std::move(incoming.request));
    }
    alive = incoming.keep_alive && !incoming.rest_unread && !premises_.stopping;
    const bool sent = co_await send(*answer, incoming.head, alive);
    connection_.set_answering(false);
    premises_.connections.wait_for_client(connection_);
    if (!sent) co_return false;
    if (incoming.rest_unread) co_await linger();
    if (alive && buffer_.size() > 0 && limits().before_pipelined > milliseconds(0)) {
      asio::steady_timer pause(premises_.io, limits().before_pipelined);
      co_await pause.async_wait(kNoThrow);
    }
    co_return alive;
  }

  /// Waits for a request, or for a reason to refuse it. False: there is nothing to answer.
  asio::awaitable<bool> receive(Incoming& incoming) {
    if (buffer_.size() == 0) {
      // Waiting for the next request may take long; sending one may not.
      connection_.allow(limits().idle);
      const auto space = buffer_.prepare(std::min(kFirstRead, buffer_.max_size()));
      const auto [error, size] = co_await stream_.async_read_some(space, kNoThrow);
      if (error) co_return false;
      buffer_.commit(size);
    }
    premises_.connections.wait_for_client(connection_);
    connection_.allow(limits().request);
    Parser parser;
    parser.header_limit(limits().header_bytes);
    parser.body_limit(limits().body_bytes);
    const auto [error, size] = co_await http::async_read_header(stream_, buffer_, parser, kNoThrow);
    if (error) co_return refuse(incoming, error);
    read_fields(parser, incoming.request);
    incoming.keep_alive = parser.get().keep_alive();
    incoming.head = parser.get().method() == http::verb::head;
    const Framing framing{parser.get().version() < 11, parser.content_length().has_value(),
                          parser.chunked()};
    incoming.refusal = premises_.service.check_head(incoming.request, framing);
    if (incoming.refusal) {
      incoming.rest_unread = !parser.is_done();
      co_return true;
    }
    co_return co_await read_body(parser, incoming);
  }

  asio::awaitable<bool> read_body(Parser& parser, Incoming& incoming) {
    if (beast::iequals(parser.get()[http::field::expect], "100-continue") && !parser.is_done()) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      const asio::const_buffer text(kContinue.data(), kContinue.size());
      const auto [error, size] = co_await asio::async_write(stream_, text, kNoThrow);
      if (error) co_return refuse(incoming, error);
    }
    Reservation reservation(premises_.service);
    while (!parser.is_done()) {
      const auto [error, size] = co_await http::async_read_some(stream_, buffer_, parser, kNoThrow);
      if (!reservation.grow_to(parser.get().body().size())) {
        co_return refuse(incoming, {Problem::Kind::no_room, "too many bytes wait"});
      }
      if (error) co_return refuse(incoming, error);
    }
    incoming.rest_unread = false;
    if (premises_.stopping) co_return refuse(incoming, {Problem::Kind::stopping, "stopping"});
    reservation.hand_over();
    incoming.request.received =
        std::chrono::time_point_cast<Timestamp::duration>(std::chrono::system_clock::now());
    incoming.request.body = std::move(parser.get().body());
    co_return true;
  }

  bool refuse(Incoming& incoming, const Problem& problem) {
    incoming.refusal = premises_.service.refusal(problem);
    return incoming.refusal != nullptr;
  }

  /// What to answer to a request that did not come to its end.
  bool refuse(Incoming& incoming, error_code error) {
    if (const auto problem = problem_of(error); problem && refuse(incoming, *problem)) return true;
    if (!connection_.is_late() || premises_.stopping) return false;
    return refuse(incoming, {Problem::Kind::too_slow, "the request took too long"});
  }

  asio::awaitable<bool> send(const Answer& answer, bool head, bool keep_alive) {
    const RawResponse raw = to_raw(answer, head, keep_alive);
    // For HEAD the body is empty, whatever Content-Length says.
    http::response_serializer<http::span_body<const char>> serializer(raw);
    const bool header_only = raw.body().empty();
    serializer.split(header_only);
    Connections& connections = premises_.connections;
    connections.wait_for_client(connection_, raw.body().size());
    while (connections.unread() > limits().unread_bytes &&
           connections.close_first_unread(connection_)) {
    }
    connection_.allow(limits().sending);
    const auto [error, size] =
        header_only ? co_await http::async_write_header(stream_, serializer, kNoThrow)
                    : co_await http::async_write(stream_, serializer, kNoThrow);
    co_return !error;
  }

  /// No more is sent; what the client still sends is dropped, for a moment.
  asio::awaitable<void> linger() {
    connection_.allow(kLinger);
    tcp::socket& socket = socket_of(stream_);
    error_code ignored;
    socket.shutdown(tcp::socket::shutdown_send, ignored);
    std::array<char, 16 * 1024> dropped;
    while (!connection_.is_late() && !premises_.stopping) {
      const auto [error, size] = co_await socket.async_read_some(asio::buffer(dropped), kNoThrow);
      if (error) co_return;
    }
  }

  asio::awaitable<void> say_goodbye() {
    if constexpr (std::is_same_v<Stream, Secure>) {
      connection_.allow(kLinger);
      co_await stream_.async_shutdown(kNoThrow);
    }
    error_code ignored;
    socket_of(stream_).shutdown(tcp::socket::shutdown_send, ignored);
  }

  Premises& premises_;
  Stream stream_;
  Connection connection_;
  beast::flat_buffer buffer_;
};

template <class Stream>
asio::awaitable<void> serve_stream(Premises& premises, Stream stream) {
  if (premises.stopping) co_return;
  Session<Stream> session(premises, std::move(stream));
  co_await session.serve();
}

}  // namespace

asio::awaitable<void> serve(Premises& premises, tcp::socket socket, asio::ssl::context* tls) {
  if (tls) return serve_stream(premises, Secure(std::move(socket), *tls));
  return serve_stream(premises, std::move(socket));
}

asio::awaitable<void> turn_away(Premises& premises, tcp::socket socket) {
  if (premises.stopping) co_return;
  Session<Plain> session(premises, std::move(socket));
  co_await session.turn_away();
}

}  // namespace relay::http
