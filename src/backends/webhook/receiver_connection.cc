#include "backends/webhook/receiver_connection.h"

#include <array>
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <utility>

#include "core/text.h"

namespace relay::webhook {

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
constexpr std::size_t kReadAhead = 64 * 1024;

using Parser = http::request_parser<http::string_body>;
using Response = http::response<http::string_body>;
using Plain = tcp::socket;
using Secure = asio::ssl::stream<tcp::socket>;

tcp::socket& socket_of(Plain& stream) {
  return stream;
}
tcp::socket& socket_of(Secure& stream) {
  return stream.next_layer();
}

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

/// A connection and what is said over it.
template <class Stream>
class Session {
 public:
  Session(Reception& reception, Stream stream)
      : reception_(reception),
        stream_(std::move(stream)),
        connection_(std::make_shared<Connection>(reception_.io, socket_of(stream_))),
        buffer_(reception_.options.max_header_bytes + kReadAhead) {
    reception_.connections.insert(connection_);
  }
  ~Session() { reception_.forget(connection_); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  asio::awaitable<void> serve() {
    // g++ 12 makes wrong code of a co_await behind && in the condition of a loop.
    bool alive = co_await shake_hands();
    if (!alive) co_return;
    while (alive && !reception_.stopping) alive = co_await serve_one();
    if (!reception_.stopping) co_await say_goodbye();
  }

  asio::awaitable<void> turn_away() {
    Incoming unread;
    unread.rest_unread = true;
    co_await answer(make_response(refused(not_now("too many connections"), {}), unread));
    co_await linger();
  }

 private:
  /// Ends what the connection is waiting for when the time is over; the connection stays, so that
  /// an answer can be sent.
  void allow(milliseconds time) {
    connection_->late = false;
    connection_->timer.expires_after(time);
    connection_->timer.async_wait([connection = connection_](error_code error) {
      // Armed again meanwhile, or over.
      if (error || !connection->socket || connection->timer.expiry() > SteadyClock::now()) return;
      error_code ignored;
      connection->late = true;
      connection->socket->cancel(ignored);
    });
  }

  asio::awaitable<bool> shake_hands() {
    if constexpr (std::is_same_v<Stream, Secure>) {
      allow(reception_.options.request_timeout);
      const auto [error] =
          co_await stream_.async_handshake(asio::ssl::stream_base::server, kNoThrow);
      co_return !error;
    }
    co_return true;
  }

  /// One request and its answer. False: the connection is at its end.
  asio::awaitable<bool> serve_one() {
    Incoming incoming = co_await receive();
    if (incoming.gone) co_return false;
    connection_->answering = true;
    if (!incoming.refusal) incoming.refusal = co_await settle_one(incoming);
    if (incoming.reserved > 0) reception_.queue.give_back(incoming.reserved);
    if (reception_.stopping) incoming.keep_alive = false;
    Response response = make_response(
        incoming.refusal ? refused(*incoming.refusal, reception_.options.auth.challenge())
                         : committed(),
        incoming);
    const bool alive = response.keep_alive();
    const bool sent = co_await answer(std::move(response));
    connection_->answering = false;
    if (sent && incoming.rest_unread) co_await linger();
    co_return sent&& alive;
  }

  /// Hands the request to the pipeline, and waits until it is settled.
  asio::awaitable<std::optional<Refusal>> settle_one(Incoming& incoming) {
    incoming.request.received =
        std::chrono::time_point_cast<Timestamp::duration>(std::chrono::system_clock::now());
    if (reception_.stopping) co_return not_now("the receiver is stopping");
    if (auto wrong = reception_.gate.whole(incoming.request, std::chrono::system_clock::now())) {
      co_return wrong;
    }
    const std::size_t head = incoming.request.head_bytes();
    if (!reception_.queue.reserve(head)) co_return not_now("too many bytes wait to be committed");
    incoming.reserved += head;
    const auto number = reception_.queue.add(std::move(incoming.request), incoming.reserved);
    if (!number) co_return not_now("nothing can be committed at the moment");
    incoming.reserved = 0;
    OpenRequest one{asio::steady_timer(reception_.io, reception_.options.response_timeout)};
    reception_.open.emplace(*number, &one);
    co_await one.timer.async_wait(kNoThrow);
    reception_.open.erase(*number);
    if (one.fate == OpenRequest::Fate::settled) co_return std::nullopt;
    if (one.fate == OpenRequest::Fate::open) reception_.queue.abandon(*number);
    co_return not_now("the message is not committed yet; send it again with the same id");
  }

  asio::awaitable<Incoming> receive() {
    Incoming incoming;
    incoming.rest_unread = true;
    if (buffer_.size() == 0) {
      // Waiting for the next request may take long; sending one may not.
      allow(reception_.options.idle_timeout);
      const auto [error, size] = co_await stream_.async_read_some(buffer_.prepare(4096), kNoThrow);
      incoming.gone = static_cast<bool>(error);
      if (error) co_return incoming;
      buffer_.commit(size);
    }
    allow(reception_.options.request_timeout);
    Parser parser;
    parser.header_limit(static_cast<std::uint32_t>(reception_.options.max_header_bytes));
    parser.body_limit(reception_.options.max_body_bytes);
    const auto [error, size] = co_await http::async_read_header(stream_, buffer_, parser, kNoThrow);
    if (error) co_return broken_off(std::move(incoming), error);
    read_fields(parser, incoming.request);
    incoming.keep_alive = parser.get().keep_alive();
    incoming.head = parser.get().method() == http::verb::head;
    const Framing framing{parser.get().version() < 11, parser.content_length().has_value(),
                          parser.chunked()};
    incoming.refusal = reception_.gate.head(incoming.request, framing, SteadyClock::now());
    if (incoming.refusal) {
      incoming.rest_unread = !parser.is_done();
      co_return incoming;
    }
    co_return co_await read_body(parser, std::move(incoming));
  }

  asio::awaitable<Incoming> read_body(Parser& parser, Incoming incoming) {
    if (beast::iequals(parser.get()[http::field::expect], "100-continue") && !parser.is_done()) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      const asio::const_buffer text(kContinue.data(), kContinue.size());
      const auto [error, size] = co_await asio::async_write(stream_, text, kNoThrow);
      if (error) co_return broken_off(std::move(incoming), error);
    }
    while (!parser.is_done()) {
      const auto [error, size] = co_await http::async_read_some(stream_, buffer_, parser, kNoThrow);
      const std::size_t more = parser.get().body().size() - incoming.reserved;
      if (reception_.queue.reserve(more)) {
        incoming.reserved += more;
      } else {
        incoming.refusal = not_now("too many bytes wait to be committed");
        co_return incoming;
      }
      if (error) co_return broken_off(std::move(incoming), error);
    }
    incoming.rest_unread = false;
    incoming.request.body = std::move(parser.get().body());
    co_return incoming;
  }

  /// What to answer to a request that did not come to its end.
  Incoming broken_off(Incoming incoming, error_code error) {
    incoming.refusal = malformed(error);
    if (!incoming.refusal && connection_->late && !reception_.stopping) {
      incoming.refusal = Refusal{408, "too_slow", "the request took too long"};
    }
    incoming.gone = !incoming.refusal;
    if (incoming.gone) reception_.queue.give_back(std::exchange(incoming.reserved, 0));
    return incoming;
  }

  asio::awaitable<bool> answer(Response response) {
    allow(reception_.options.request_timeout);
    http::response_serializer<http::string_body> serializer(response);
    // For HEAD the body is empty, whatever Content-Length says.
    const bool header_only = response.body().empty();
    serializer.split(header_only);
    const auto [error, size] =
        header_only ? co_await http::async_write_header(stream_, serializer, kNoThrow)
                    : co_await http::async_write(stream_, serializer, kNoThrow);
    co_return !error;
  }

  /// No more is sent; what the client still sends is dropped, for a moment.
  asio::awaitable<void> linger() {
    allow(kLinger);
    tcp::socket& socket = socket_of(stream_);
    error_code ignored;
    socket.shutdown(tcp::socket::shutdown_send, ignored);
    std::array<char, 16 * 1024> dropped;
    while (!connection_->late && !reception_.stopping) {
      const auto [error, size] = co_await socket.async_read_some(asio::buffer(dropped), kNoThrow);
      if (error) co_return;
    }
  }

  asio::awaitable<void> say_goodbye() {
    if constexpr (std::is_same_v<Stream, Secure>) {
      allow(kLinger);
      co_await stream_.async_shutdown(kNoThrow);
    }
    error_code ignored;
    socket_of(stream_).shutdown(tcp::socket::shutdown_send, ignored);
  }

  Reception& reception_;
  Stream stream_;
  const std::shared_ptr<Connection> connection_;
  beast::flat_buffer buffer_;
};

template <class Stream>
asio::awaitable<void> serve_stream(Reception& reception, Stream stream) {
  if (reception.stopping) co_return;
  Session<Stream> session(reception, std::move(stream));
  co_await session.serve();
}

}  // namespace

void Connection::end() {
  error_code ignored;
  if (socket) socket->close(ignored);
}

void Reception::forget(const std::shared_ptr<Connection>& connection) {
  connection->socket = nullptr;
  connection->timer.cancel();
  connections.erase(connection);
  if (stopping && connections.empty()) last_resort.cancel();
}

void Reception::settle_open(std::int64_t number) {
  while (!open.empty() && open.begin()->first <= number) {
    OpenRequest& one = *open.begin()->second;
    one.fate = OpenRequest::Fate::settled;
    one.timer.cancel();
    open.erase(open.begin());
  }
}

void Reception::give_up_open() {
  for (const auto& [number, one] : open) {
    one->fate = OpenRequest::Fate::given_up;
    one->timer.cancel();
  }
}

asio::awaitable<void> serve(Reception& reception, tcp::socket socket) {
  return serve_stream(reception, std::move(socket));
}

asio::awaitable<void> serve(Reception& reception, asio::ssl::stream<tcp::socket> stream) {
  return serve_stream(reception, std::move(stream));
}

asio::awaitable<void> turn_away(Reception& reception, tcp::socket socket) {
  if (reception.stopping) co_return;
  Session<Plain> session(reception, std::move(socket));
  co_await session.turn_away();
}

}  // namespace relay::webhook
