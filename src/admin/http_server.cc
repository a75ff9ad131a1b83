#include "admin/http_server.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <chrono>
#include <deque>
#include <limits>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "admin/connections.h"
#include "admin/descriptor_reserve.h"
#include "core/log.h"
#include "core/shortage.h"
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

// Between two lots the other connections have their turn.
constexpr int kAcceptedTogether = 16;
// What the system keeps for a client that sends and does not read.
constexpr int kSocketBuffer = 64 * 1024;
// A client that sends requests without waiting for answers, or while its lane is full, is slowed
// down: it could keep the server's thread busy otherwise.
constexpr std::chrono::milliseconds kBeforePipelined{20};
constexpr std::chrono::milliseconds kBeforeBusy{250};
// A client that has connected has so long to send its request before its connection may be closed
// for another one.
constexpr std::chrono::milliseconds kKept{25};
// Where neither descriptors nor memory are left, and no connection that could be closed for them.
constexpr std::chrono::milliseconds kAcceptPause{2};
// No more than this part of what the process may have.
constexpr std::size_t kReservedDescriptors = 64;
constexpr std::size_t kReservedPart = 16;
// However few descriptors the process may have.
constexpr std::size_t kFewestConnections = 8;

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

using Response = std::shared_ptr<const HttpResponse>;
using RawResponse = http::response<http::span_body<const char>>;

/// Its body is that of `response`, which must outlive it.
RawResponse to_raw(const HttpResponse& response, bool head, bool keep_alive) {
  RawResponse raw{static_cast<http::status>(response.status), 11};
  raw.set(http::field::content_type, response.content_type);
  raw.set(http::field::cache_control, "no-store");
  for (const auto& [name, value] : response.headers) raw.set(name, value);
  raw.keep_alive(keep_alive);
  raw.content_length(response.body.size());
  if (!head) raw.body() = {response.body.data(), response.body.size()};
  return raw;
}

Response refusal(int status, std::string_view text) {
  HttpResponse response;
  response.status = status;
  response.body = std::string(text) + "\n";
  return std::make_shared<const HttpResponse>(std::move(response));
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
  Response refusal;
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

bool is_descriptor_shortage(error_code error) {
  return error == asio::error::no_descriptors || error.value() == ENFILE;
}

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

/// Its coroutine ends with an error where it is closed.
class Connection : public ListedConnection {
 public:
  explicit Connection(tcp::socket socket) : stream(std::move(socket)) {}
  beast::tcp_stream stream;

 private:
  void close() override { stream.close(); }
};

/// A request, or several for the same path, and what came of it. Of the server's thread, but for
/// `request` while a worker has it.
struct Job {
  Job(asio::io_context& io, HttpRequest given)
      : request(std::move(given)), path(request.path), changed(io) {}
  const HttpRequest request;
  const std::string path;
  asio::steady_timer changed;  // expires when the wait is too long; cancelled with each news
  Response response;
};

}  // namespace

/// Threads that run what is posted to `io`. A pool of asio waits for ever for the threads that it
/// has started where the next one cannot be started.
class Workers {
 public:
  ~Workers() { join(); }
  void start(std::size_t count) {
    work_.emplace(asio::make_work_guard(io));
    for (std::size_t i = 0; i < count; ++i) {
      threads_.emplace_back([this] { io.run(); });
    }
  }
  /// What was posted is done first.
  void join() {
    work_.reset();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  asio::io_context io;

 private:
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work_;
  std::vector<std::thread> threads_;
};

struct HttpServer::Impl {
  Impl(HttpService given, HttpLimits of) : service(std::move(given)), limits(of) {
    workers.start(count_workers(service.lanes));
    limits.connections = most_connections(limits.connections);
    service.busy.headers.emplace_back("Retry-After", "1");
    busy = std::make_shared<const HttpResponse>(service.busy);
    for (const Lane& lane : service.lanes) queues.emplace_back(lane);
  }

  static std::size_t count_workers(const std::vector<Lane>& lanes) {
    std::size_t count = 0;
    for (const Lane& lane : lanes) count += lane.workers;
    return count;
  }

  Result<void> listen(const tcp::endpoint& endpoint, std::string_view address) {
    error_code error;
    acceptor.open(endpoint.protocol(), error);
    if (!error) close_on_exec(acceptor);
    if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    // Connections inherit them.
    if (!error) acceptor.set_option(asio::socket_base::receive_buffer_size(kSocketBuffer), error);
    if (!error) acceptor.set_option(asio::socket_base::send_buffer_size(kSocketBuffer), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (!error) acceptor.non_blocking(true, error);
    if (error) {
      Error refused{
          ErrorClass::transient,
          "address",
          fmt::format("metrics and health cannot be served on {}: {}", address, error.message()),
          "Choose another address with --metrics-addr, or end what uses this one.",
          {}};
      refused = shortage::explained(std::move(refused));
      if (refused.code == "address") refused.error_class = ErrorClass::misconfigured;
      return fail(std::move(refused));
    }
    port = acceptor.local_endpoint().port();
    return {};
  }

  /// Clients are accepted again where that ended by an exception, such as for want of memory.
  void keep_accepting() {
    asio::co_spawn(io, accept(), [this](std::exception_ptr failure) {
      if (!failure || stopping) return;
      try {
        std::rethrow_exception(failure);
      } catch (const std::exception& exception) {
        log::failure("http", "", shortage::error_of(exception, "accepting connections"));
      }
      keep_accepting();
    });
  }

  asio::awaitable<void> accept() {
    while (!stopping) {
      const auto [error] = co_await acceptor.async_wait(tcp::acceptor::wait_read, kNoThrow);
      if (stopping) co_return;
      if (!error && accept_some()) continue;
      co_await pause(kAcceptPause);
    }
  }

  asio::awaitable<void> pause(std::chrono::milliseconds time) {
    asio::steady_timer timer(io, time);
    co_await timer.async_wait(kNoThrow);
  }

  /// Accepts what waits, up to a limit. False: nothing can be accepted for now.
  bool accept_some() {
    for (int i = 0; i < kAcceptedTogether; ++i) {
      if (connections.size() >= limits.connections) {
        if (i > 0) return true;  // whether one waits is known of the first one only
        if (!connections.close_first(kKept)) return false;
      }
      error_code error;
      tcp::socket socket = acceptor.accept(error);
      if (error == asio::error::would_block) return true;
      if (error == asio::error::connection_aborted) continue;
      if (is_descriptor_shortage(error)) {
        if (!reserve.release_one() && !connections.close_first(kKept)) return false;
        continue;
      }
      if (error) return false;
      close_on_exec(socket);
      asio::co_spawn(io, serve(std::move(socket)), asio::detached);
    }
    return true;
  }

  asio::awaitable<void> serve(tcp::socket socket) {
    struct Registered {
      Impl& server;
      Connection one;
      Registered(Impl& impl, tcp::socket given) : server(impl), one(std::move(given)) {
        server.connections.enter(one);
      }
      ~Registered() {
        server.connections.leave(one);
        one.stream.close();
        server.reserve.refill();
      }
    } registered(*this, std::move(socket));
    Connection& connection = registered.one;
    beast::flat_buffer buffer(limits.header_bytes + limits.body_bytes + 1024);
    bool alive = !stopping;
    while (alive) {
      Incoming incoming = co_await receive(connection, buffer);
      if (incoming.kind == Incoming::Kind::gone) co_return;
      const bool refused = incoming.kind == Incoming::Kind::refused;
      alive = !refused && incoming.raw.keep_alive();
      Response response = std::move(incoming.refusal);
      connections.wait_for_worker(connection);
      if (!refused) response = co_await answer(to_request(incoming.raw));
      const bool head = incoming.raw.method() == http::verb::head;
      const bool sent = co_await send(connection, *response, head, alive);
      if (!sent) co_return;
      connections.wait_for_client(connection);
      if (refused) co_await linger(connection.stream);
      if (alive && buffer.size() > 0) co_await pause(kBeforePipelined);
    }
    error_code ignored;
    connection.stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
  }

  asio::awaitable<Incoming> receive(Connection& connection, beast::flat_buffer& buffer) {
    beast::tcp_stream& stream = connection.stream;
    http::request_parser<http::string_body> parser;
    parser.header_limit(limits.header_bytes);
    parser.body_limit(limits.body_bytes);
    if (buffer.size() == 0) {
      // Waiting for the next request may take long; sending one may not.
      connections.wait_for_client(connection);
      stream.expires_after(limits.idle);
      const auto [error, size] = co_await stream.async_read_some(buffer.prepare(1024), kNoThrow);
      if (error) co_return Incoming{};
      buffer.commit(size);
    }
    connections.wait_for_client(connection);
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

  asio::awaitable<bool> send(Connection& connection, const HttpResponse& response, bool head,
                             bool keep_alive) {
    const RawResponse raw = to_raw(response, head, keep_alive);
    // For HEAD the body is empty, whatever Content-Length says.
    http::response_serializer<http::span_body<const char>> serializer(raw);
    const bool header_only = raw.body().empty();
    serializer.split(header_only);
    connections.wait_for_client(connection, raw.body().size());
    while (connections.unread() > limits.unread_bytes &&
           connections.close_first_unread(connection)) {
    }
    connection.stream.expires_after(limits.sending);
    if (header_only) {
      const auto [error, size] =
          co_await http::async_write_header(connection.stream, serializer, kNoThrow);
      co_return !error;
    }
    const auto [error, size] = co_await http::async_write(connection.stream, serializer, kNoThrow);
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

  asio::awaitable<Response> answer(HttpRequest request) {
    const auto lane = service.lane_of(request);
    if (!lane) co_return call_handler(request);
    LaneQueue<Job>& queue = queues.at(*lane);
    std::shared_ptr<Job> job = queue.find(request.path);
    if (!job) {
      job = std::make_shared<Job>(io, std::move(request));
      job->changed.expires_after(limits.worker);
      if (!queue.add(job)) {
        co_await pause(kBeforeBusy);
        co_return busy;
      }
      begin_jobs(queue);
    }
    while (!job->response) {
      const auto [waited] = co_await job->changed.async_wait(kNoThrow);
      if (waited || job->response) continue;  // cancelled: there is news
      queue.withdraw(job);
      co_return busy;
    }
    co_return job->response;
  }

  /// Hands waiting jobs to free workers; each comes back to the server's thread with its answer.
  void begin_jobs(LaneQueue<Job>& queue) {
    while (auto job = queue.begin()) {
      job->changed.expires_after(limits.answer);
      asio::post(workers.io, [this, &queue, job = std::move(job)]() mutable {
        Response response = call_handler(job->request);
        asio::post(io, [this, &queue, job = std::move(job), response = std::move(response)] {
          job->response = response;
          job->changed.cancel();
          queue.finished();
          begin_jobs(queue);
        });
      });
    }
  }

  Response call_handler(const HttpRequest& request) {
    if (stopping) return refusal(503, "stopping");
    try {
      return std::make_shared<const HttpResponse>(service.handler(request));
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
      while (connections.close_first()) {
      }
    });
    thread.join();
    workers.join();
  }

  HttpService service;
  HttpLimits limits;
  Response busy;
  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  // Of the server's thread, as are the queues.
  Connections connections;
  DescriptorReserve reserve{std::min(kReservedDescriptors, most_descriptors() / kReservedPart)};
  std::deque<LaneQueue<Job>> queues;
  Workers workers;
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

Result<std::unique_ptr<HttpServer>> HttpServer::start(std::string_view address, HttpService service,
                                                      HttpLimits limits) {
  const auto endpoint = parse_address(address);
  if (!endpoint) return fail(endpoint.error());
  auto impl = std::make_unique<Impl>(std::move(service), limits);
  if (auto listening = impl->listen(*endpoint, address); !listening) {
    return fail(std::move(listening.error()));
  }
  impl->keep_accepting();
  impl->thread = std::thread([&io = impl->io] { io.run(); });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

}  // namespace relay::admin
