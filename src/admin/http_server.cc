#include "admin/http_server.h"

#include <fcntl.h>
#include <fmt/core.h>

#include <array>
#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>

#include "core/log.h"
#include "core/text.h"

namespace relay::admin {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

// What is still on its way when a request was refused is read for so long, and dropped: closing
// with unread input would take the answer from the client.
constexpr std::chrono::seconds kLinger{2};

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);

/// Percent-decoding; a malformed escape stays as it is.
std::string decode(std::string_view text, bool plus_is_space) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 &&
        digit(text[i + 2]) >= 0) {
      out += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      out += plus_is_space && text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

void read_query(std::string_view text, std::map<std::string, std::string>& query) {
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(pair.size() + 1, text.size()));
    const auto equals = std::min(pair.find('='), pair.size());
    query[decode(pair.substr(0, equals), true)] =
        decode(pair.substr(std::min(equals + 1, pair.size())), true);
  }
}

HttpRequest to_request(const http::request<http::string_body>& raw) {
  HttpRequest request;
  request.method = std::string(raw.method_string());
  request.target = std::string(raw.target());
  const std::string_view target = request.target;
  const auto mark = std::min(target.find('?'), target.size());
  request.path = decode(target.substr(0, mark), false);
  if (mark < target.size()) read_query(target.substr(mark + 1), request.query);
  for (const auto& field : raw) {
    request.headers[lower_case(field.name_string())] = std::string(field.value());
  }
  request.body = raw.body();
  return request;
}

http::response<http::string_body> to_raw(HttpResponse response, bool head, bool keep_alive) {
  http::response<http::string_body> raw{static_cast<http::status>(response.status), 11};
  raw.set(http::field::content_type, response.content_type);
  raw.set(http::field::cache_control, "no-store");
  for (const auto& [name, value] : response.headers) raw.set(name, value);
  raw.keep_alive(keep_alive);
  raw.content_length(response.body.size());
  if (!head) raw.body() = std::move(response.body);
  return raw;
}

HttpResponse refusal(int status, std::string_view text) {
  HttpResponse response;
  response.status = status;
  response.body = std::string(text) + "\n";
  return response;
}

Result<tcp::endpoint> parse_address(std::string_view text) {
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorClass::misconfigured, "address", fmt::format("\"{}\" {}", text, why),
                "Write it as --metrics-addr 127.0.0.1:9090, or [::1]:9090.");
  };
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return refuse("names no port");
  std::string host(text.substr(0, colon));
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  if (host == "localhost") host = "127.0.0.1";
  if (host.empty()) host = "0.0.0.0";
  error_code error;
  const auto address = asio::ip::make_address(host, error);
  if (error) return refuse("does not begin with an IP address");
  const std::string_view port = text.substr(colon + 1);
  std::uint16_t number = 0;
  const auto [end, wrong] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (port.empty() || wrong != std::errc() || end != port.data() + port.size()) {
    return refuse("does not end with a port");
  }
  return tcp::endpoint(address, number);
}

// A program that the relay starts must not keep its port.
template <class Socket>
void close_on_exec(Socket& socket) {
  ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
}

/// What came of waiting for a request.
struct Incoming {
  enum class Kind { request, refused, gone };
  Kind kind = Kind::gone;
  http::request<http::string_body> raw;
  HttpResponse refusal;
};

Incoming not_a_request(error_code error) {
  Incoming incoming;
  if (error == http::error::end_of_stream || error == beast::error::timeout ||
      error.category() != make_error_code(http::error::bad_method).category()) {
    return incoming;
  }
  incoming.kind = Incoming::Kind::refused;
  const int status = error == http::error::body_limit     ? 413
                     : error == http::error::header_limit ? 431
                                                          : 400;
  incoming.refusal = refusal(status, error.message());
  return incoming;
}

bool expects_continue(const http::request<http::string_body>& request) {
  return beast::iequals(request[http::field::expect], "100-continue");
}

}  // namespace

struct HttpServer::Impl {
  Impl(Handler given, HttpLimits of) : handler(std::move(given)), limits(of), acceptor(io) {}

  Result<void> listen(const tcp::endpoint& endpoint, std::string_view address) {
    error_code error;
    acceptor.open(endpoint.protocol(), error);
    if (!error) close_on_exec(acceptor);
    if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      return fail(
          ErrorClass::misconfigured, "address",
          fmt::format("metrics and health cannot be served on {}: {}", address, error.message()),
          "Choose another address with --metrics-addr, or end what uses this one.");
    }
    port = acceptor.local_endpoint().port();
    return {};
  }

  asio::awaitable<void> accept() {
    while (!stopping) {
      auto [error, socket] = co_await acceptor.async_accept(kNoThrow);
      if (stopping) co_return;
      if (error) {
        // Out of descriptors, say: others will end theirs.
        asio::steady_timer pause(io, std::chrono::milliseconds(100));
        co_await pause.async_wait(kNoThrow);
        continue;
      }
      if (connections >= limits.connections) continue;  // the socket ends here
      close_on_exec(socket);
      ++connections;
      asio::co_spawn(io, serve(beast::tcp_stream(std::move(socket))),
                     [this](std::exception_ptr) { --connections; });
    }
  }

  asio::awaitable<void> serve(beast::tcp_stream stream) {
    struct Registered {
      std::set<beast::tcp_stream*>& all;
      beast::tcp_stream* one;
      ~Registered() { all.erase(one); }
    };
    open.insert(&stream);
    const Registered registered{open, &stream};
    beast::flat_buffer buffer(limits.header_bytes + limits.body_bytes + 1024);
    bool alive = !stopping;
    while (alive) {
      Incoming incoming = co_await receive(stream, buffer);
      if (incoming.kind == Incoming::Kind::gone) co_return;
      const bool refused = incoming.kind == Incoming::Kind::refused;
      alive = !refused && incoming.raw.keep_alive();
      HttpResponse response = std::move(incoming.refusal);
      if (!refused) {
        const HttpRequest request = to_request(incoming.raw);
        response = co_await answer(request);
      }
      const bool head = incoming.raw.method() == http::verb::head;
      const bool sent = co_await send(stream, to_raw(std::move(response), head, alive));
      if (!sent) co_return;
      if (refused) co_await linger(stream);
    }
    error_code ignored;
    stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
  }

  asio::awaitable<Incoming> receive(beast::tcp_stream& stream, beast::flat_buffer& buffer) {
    http::request_parser<http::string_body> parser;
    parser.header_limit(limits.header_bytes);
    parser.body_limit(limits.body_bytes);
    if (buffer.size() == 0) {
      // Waiting for the next request may take long; sending one may not.
      stream.expires_after(limits.idle);
      const auto [error, size] = co_await stream.async_read_some(buffer.prepare(1024), kNoThrow);
      if (error) co_return Incoming{};
      buffer.commit(size);
    }
    stream.expires_after(limits.request);
    auto [error, size] = co_await http::async_read_header(stream, buffer, parser, kNoThrow);
    if (!error && expects_continue(parser.get())) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      const asio::const_buffer text(kContinue.data(), kContinue.size());
      std::tie(error, size) = co_await asio::async_write(stream, text, kNoThrow);
    }
    if (!error && !parser.is_done()) {
      std::tie(error, size) = co_await http::async_read(stream, buffer, parser, kNoThrow);
    }
    if (error) co_return not_a_request(error);
    Incoming incoming;
    incoming.kind = Incoming::Kind::request;
    incoming.raw = parser.release();
    co_return incoming;
  }

  asio::awaitable<bool> send(beast::tcp_stream& stream,
                             http::response<http::string_body> response) {
    // For HEAD the body is empty, whatever Content-Length says.
    http::response_serializer<http::string_body> serializer(response);
    const bool header_only = response.body().empty();
    serializer.split(header_only);
    stream.expires_after(limits.request);
    if (header_only) {
      const auto [error, size] = co_await http::async_write_header(stream, serializer, kNoThrow);
      co_return !error;
    }
    const auto [error, size] = co_await http::async_write(stream, serializer, kNoThrow);
    co_return !error;
  }

  asio::awaitable<void> linger(beast::tcp_stream& stream) {
    error_code ignored;
    stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
    stream.expires_after(kLinger);
    std::array<char, 4096> dropped;
    while (true) {
      const auto [error, size] = co_await stream.async_read_some(asio::buffer(dropped), kNoThrow);
      if (error) co_return;
    }
  }

  /// Runs the handler on the worker, then comes back to the server's thread.
  asio::awaitable<HttpResponse> answer(const HttpRequest& request) {
    co_return co_await asio::co_spawn(
        worker,
        [this, &request]() -> asio::awaitable<HttpResponse> { co_return call_handler(request); },
        asio::use_awaitable);
  }

  HttpResponse call_handler(const HttpRequest& request) {
    if (stopping) return refusal(503, "stopping");
    try {
      return handler(request);
    } catch (const std::exception& exception) {
      log::error("http", "", "{} {}: {}", request.method, request.path, exception.what());
      return refusal(500, "internal error");
    }
  }

  /// Lets every coroutine run to its end, so that none is left when the loop is.
  void stop() {
    const std::lock_guard lock(stop_mutex);
    if (!thread.joinable()) return;
    stopping = true;
    asio::post(io, [this] {
      error_code ignored;
      acceptor.close(ignored);
      for (beast::tcp_stream* stream : open) stream->close();
    });
    thread.join();
    worker.join();
  }

  Handler handler;
  HttpLimits limits;
  asio::io_context io{1};
  tcp::acceptor acceptor;
  asio::thread_pool worker{1};
  std::set<beast::tcp_stream*> open;  // of the server's thread, as is `connections`
  std::size_t connections = 0;
  int port = 0;
  std::atomic<bool> stopping{false};
  std::mutex stop_mutex;
  std::thread thread;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() {
  stop();
}

int HttpServer::port() const {
  return impl_->port;
}

void HttpServer::stop() {
  impl_->stop();
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(std::string_view address, Handler handler,
                                                      HttpLimits limits) {
  const auto endpoint = parse_address(address);
  if (!endpoint) return fail(endpoint.error());
  auto impl = std::make_unique<Impl>(std::move(handler), limits);
  if (auto listening = impl->listen(*endpoint, address); !listening) {
    return fail(std::move(listening.error()));
  }
  asio::co_spawn(impl->io, impl->accept(), asio::detached);
  impl->thread = std::thread([&io = impl->io] { io.run(); });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

}  // namespace relay::admin
