#include "lineq/connection.h"

#include <fmt/core.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "lineq/line.h"

namespace relay::lineq {

namespace {

constexpr std::size_t kReadBytes = 64 * 1024;
constexpr const char* kAway = "start the server, or set url to where it listens";

std::string system_text(int error) {
  return std::system_category().message(error);
}

Error unreachable(const config::Endpoint& server, std::string_view why) {
  return {ErrorClass::transient,
          std::string(kUnreachable),
          fmt::format("cannot connect to lineq at {}: {}", server.address, why),
          kAway,
          {}};
}

/// A dead peer is noticed without anything being sent.
void keep_alive(int socket) {
  const auto set = [socket](int level, int option, int value) {
    (void)::setsockopt(socket, level, option, &value, sizeof value);
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
  set(IPPROTO_TCP, TCP_NODELAY, 1);
}

/// A connected socket, or why there is none: errno.
int connect_to(const addrinfo& place, Deadline deadline, const StopEvent& stop) {
  const int fd =
      ::socket(place.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, place.ai_protocol);
  if (fd < 0) return -1;
  int error = ::connect(fd, place.ai_addr, place.ai_addrlen) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd waiting[] = {{fd, POLLOUT, 0}, {stop.fd(), POLLIN, 0}};
    const int woken = ::poll(waiting, 2, static_cast<int>(deadline.left().count()));
    socklen_t size = sizeof error;
    if (woken <= 0 || waiting[1].revents != 0) {
      error = woken == 0 ? ETIMEDOUT : ECANCELED;
    } else if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
      error = errno;
    }
  }
  if (error == 0) return fd;
  ::close(fd);
  errno = error;
  return -1;
}

}  // namespace

Result<std::unique_ptr<Connection>> Connection::open(const ConnectionOptions& options,
                                                     std::stop_token stop) {
  const config::Endpoint& server = options.server;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int resolved =
      ::getaddrinfo(server.host.c_str(), std::to_string(server.port).c_str(), &hints, &found);
  if (resolved != 0) return fail(unreachable(server, ::gai_strerror(resolved)));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> places(found, ::freeaddrinfo);

  const Deadline deadline = Deadline::after(options.timeout);
  const StopEvent stopped(stop);
  for (const addrinfo* place = found; place != nullptr; place = place->ai_next) {
    const int socket = connect_to(*place, deadline, stopped);
    if (socket < 0) continue;
    keep_alive(socket);
    std::unique_ptr<Connection> connection(new Connection(options, socket));
    if (auto logged_in = connection->log_in(stop); !logged_in) return fail(logged_in.error());
    return connection;
  }
  return fail(unreachable(server, system_text(errno)));
}

Connection::~Connection() {
  ::close(socket_);
}

Result<void> Connection::log_in(std::stop_token stop) {
  send({"HELLO", options_.token});
  auto answer = next(Deadline::after(options_.timeout), StopEvent(stop));
  if (!answer) return fail(answer.error());
  if (!*answer) return fail(silent());
  const std::vector<std::string>& line = **answer;
  if (line[0] == "OK") return {};
  if (line[0] != "DENIED") return fail(unexpected(line));
  return fail(ErrorClass::misconfigured, "access_denied",
              fmt::format("lineq at {} refuses the token", address()),
              "set token to the one that the server was started with");
}

void Connection::send(std::initializer_list<std::string_view> fields) {
  append_line(out_, std::span(fields.begin(), fields.size()));
}

void Connection::send(std::span<const std::string_view> fields) {
  append_line(out_, fields);
}

Result<std::optional<std::vector<std::string>>> Connection::next(Deadline deadline,
                                                                 const StopEvent& stop) {
  while (true) {
    if (auto written = write(); !written) return fail(written.error());
    if (auto line = take_line()) return line;
    if (!wait(true, deadline, stop)) return std::nullopt;
    if (auto more = read(); !more) return fail(more.error());
  }
}

Result<void> Connection::flush(Deadline deadline, const StopEvent& stop) {
  while (true) {
    if (auto written = write(); !written) return written;
    if (unsent() == 0) return {};
    if (!wait(false, deadline, stop)) return fail(silent());
  }
}

/// As much as the kernel takes now.
Result<void> Connection::write() {
  while (unsent() > 0) {
    const ssize_t count = ::send(socket_, out_.data() + sent_, unsent(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return {};
    if (count < 0) return fail(lost(system_text(errno)));
    sent_ += static_cast<std::size_t>(count);
  }
  out_.clear();
  sent_ = 0;
  return {};
}

/// As much as there is, up to a limit.
Result<void> Connection::read() {
  in_.erase(0, taken_);
  searched_ -= taken_;
  taken_ = 0;
  const std::size_t size = in_.size();
  in_.resize(size + kReadBytes);
  const ssize_t count = ::recv(socket_, in_.data() + size, kReadBytes, 0);
  const int error = errno;
  in_.resize(size + static_cast<std::size_t>(count > 0 ? count : 0));
  if (count > 0 || (count < 0 && (error == EAGAIN || error == EINTR))) return {};
  return fail(lost(count == 0 ? "it closed the connection" : system_text(error)));
}

std::optional<std::vector<std::string>> Connection::take_line() {
  const std::size_t end = in_.find('\n', searched_);
  if (end == std::string::npos) {
    searched_ = in_.size();
    return std::nullopt;
  }
  auto fields = split_line(std::string_view(in_).substr(taken_, end - taken_));
  taken_ = searched_ = end + 1;
  return fields;
}

/// Until bytes can be read or sent. False: the deadline has passed, or a stop was asked for.
bool Connection::wait(bool for_lines, Deadline deadline, const StopEvent& stop) {
  short events = for_lines ? POLLIN : 0;
  if (unsent() > 0) events |= POLLOUT;
  pollfd waiting[] = {{socket_, events, 0}, {stop.fd(), POLLIN, 0}};
  const int woken = ::poll(waiting, 2, static_cast<int>(deadline.left().count()));
  if (woken < 0) return errno == EINTR;
  return woken > 0 && waiting[1].revents == 0;
}

Error Connection::lost(std::string_view why) const {
  return {ErrorClass::transient,
          "connection_lost",
          fmt::format("the connection to lineq at {} is gone: {}", address(), why),
          kAway,
          {}};
}

Error Connection::silent() const {
  return {
      ErrorClass::transient,
      "timeout",
      fmt::format("lineq at {} did not answer within {} ms", address(), options_.timeout.count()),
      "look at the server; raise timeout where it is slow",
      {}};
}

Error Connection::unexpected(const std::vector<std::string>& line) const {
  return misconfigured("protocol",
                       fmt::format("lineq at {} answered '{}', which the protocol does not have",
                                   address(), line[0]),
                       "set url to a server of lineq");
}

}  // namespace relay::lineq
