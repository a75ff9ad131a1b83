#include "backends/redis/transport.h"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "core/tls_remedy.h"

namespace relay::redis {

namespace {

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
struct FreeSsl {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};

std::string system_text(int error) {
  return std::system_category().message(error);
}

Error cannot_connect(std::string_view address, std::string_view why) {
  return {ErrorClass::transient,
          std::string(kUnreachable),
          fmt::format("cannot connect to Redis at {}: {}", address, why),
          "check host and port in url, that the server runs, and that this machine reaches it",
          {}};
}

Error stopped() {
  return {ErrorClass::cancelled, "stopped", "stopped while connecting to Redis", {}, {}};
}

/// What OpenSSL has to say of the last failure.
std::string tls_words() {
  const unsigned long code = ERR_peek_last_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  ERR_clear_error();
  return reason == nullptr ? "the connection ended" : reason;
}

Error bad_file(std::string_view option, const std::string& path) {
  return {ErrorClass::misconfigured,
          "unreadable_file",
          fmt::format("{}: {} cannot be used: {}", option, path, tls_words()),
          "correct the path, or let the relay's user read it",
          {}};
}

void set_up(int socket) {
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  const int idle_seconds = 60;
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle_seconds, sizeof idle_seconds);
  const int between_seconds = 15;
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &between_seconds, sizeof between_seconds);
}

Transport::Woken wait_for(int socket, short events, Deadline deadline, int stop_fd) {
  while (true) {
    pollfd waits[2] = {{socket, events, 0}, {stop_fd, POLLIN, 0}};
    const int left = static_cast<int>(deadline.left().count());
    const int found = ::poll(waits, 2, left);
    if (found < 0 && errno == EINTR) continue;
    if (found > 0 && waits[1].revents != 0) return Transport::Woken::stopped;
    if (found > 0) return Transport::Woken::ready;
    if (deadline.passed()) return Transport::Woken::deadline;
  }
}

/// 0: connected; else an errno. -1: stopped.
int connect_socket(int socket, const addrinfo& address, Deadline deadline, int stop_fd) {
  if (::connect(socket, address.ai_addr, address.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  switch (wait_for(socket, POLLOUT, deadline, stop_fd)) {
    case Transport::Woken::stopped:
      return -1;
    case Transport::Woken::deadline:
      return ETIMEDOUT;
    case Transport::Woken::ready:
      break;
  }
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

/// The first address of the host that answers.
Result<int> connected_socket(const Endpoint& endpoint, Deadline deadline, int stop_fd) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV;
  addrinfo* raw = nullptr;
  const int resolved = ::getaddrinfo(endpoint.host.c_str(), endpoint.port.c_str(), &hints, &raw);
  const std::unique_ptr<addrinfo, FreeAddresses> list(raw);
  if (resolved != 0) return fail(cannot_connect(endpoint.address, ::gai_strerror(resolved)));
  int error = ENOENT;
  for (const addrinfo* address = raw; address != nullptr; address = address->ai_next) {
    const int socket = ::socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (socket < 0) {
      error = errno;
      continue;
    }
    error = connect_socket(socket, *address, deadline, stop_fd);
    if (error == 0) return socket;
    ::close(socket);
    if (error < 0) return fail(stopped());
  }
  return fail(cannot_connect(endpoint.address, system_text(error)));
}

bool is_address(const std::string& host) {
  unsigned char ignored[sizeof(in6_addr)];
  return ::inet_pton(AF_INET, host.c_str(), ignored) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), ignored) == 1;
}

}  // namespace

struct Transport::Tls {
  std::unique_ptr<SSL_CTX, FreeSsl> context;
  std::unique_ptr<SSL, FreeSsl> ssl;
  bool wants_write = false;  // what the last call waits for, beside what its caller wants
};

Transport::Transport(int socket, std::string address)
    : socket_(socket), address_(std::move(address)) {}

Transport::~Transport() {
  tls_.reset();
  ::close(socket_);
}

Result<std::unique_ptr<Transport>> Transport::connect(const ConnectionOptions& options,
                                                      const Endpoint& endpoint, Deadline deadline,
                                                      int stop_fd) {
  const auto socket = connected_socket(endpoint, deadline, stop_fd);
  if (!socket) return fail(socket.error());
  std::unique_ptr<Transport> transport(new Transport(*socket, endpoint.address));
  set_up(*socket);
  if (endpoint.tls) {
    if (auto started = transport->start_tls(options, endpoint, deadline, stop_fd); !started) {
      return fail(started.error());
    }
  }
  return transport;
}

namespace {

Result<void> load_files(SSL_CTX* context, const ConnectionOptions& options) {
  if (!options.tls_ca.empty()) {
    if (SSL_CTX_load_verify_locations(context, options.tls_ca.c_str(), nullptr) != 1) {
      return fail(bad_file("tls_ca", options.tls_ca));
    }
  } else {
    SSL_CTX_set_default_verify_paths(context);
  }
  if (options.tls_cert.empty()) return {};
  if (SSL_CTX_use_certificate_chain_file(context, options.tls_cert.c_str()) != 1) {
    return fail(bad_file("tls_cert", options.tls_cert));
  }
  if (SSL_CTX_use_PrivateKey_file(context, options.tls_key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return fail(bad_file("tls_key", options.tls_key));
  }
  return {};
}

/// Whom the certificate must be for.
void expect_name(SSL* ssl, const std::string& host) {
  if (is_address(host)) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str());
  } else {
    SSL_set_tlsext_host_name(ssl, host.c_str());
    SSL_set1_host(ssl, host.c_str());
  }
}

Error handshake_error(SSL* ssl, std::string_view address) {
  const long verified = SSL_get_verify_result(ssl);
  if (verified != X509_V_OK && SSL_get_verify_mode(ssl) != SSL_VERIFY_NONE) {
    ERR_clear_error();
    const char* said = X509_verify_cert_error_string(verified);
    return {ErrorClass::misconfigured,
            "tls_verification",
            fmt::format("the certificate of {} is not trusted: {}", address, said),
            tls_remedy(said, "set tls_ca to the authority that signed it"),
            {}};
  }
  const std::string said = tls_words();
  return {ErrorClass::transient,
          "tls_handshake",
          fmt::format("TLS with {} failed: {}", address, said),
          tls_remedy(said,
                     "if this stays, the server may ask for a client certificate (tls_cert, "
                     "tls_key), or not speak TLS (redis://)"),
          {}};
}

}  // namespace

Result<void> Transport::start_tls(const ConnectionOptions& options, const Endpoint& endpoint,
                                  Deadline deadline, int stop_fd) {
  ERR_clear_error();
  tls_ = std::make_unique<Tls>();
  tls_->context.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* const context = tls_->context.get();
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_verify(context, options.tls_verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  if (auto loaded = load_files(context, options); !loaded) return loaded;
  tls_->ssl.reset(SSL_new(context));
  SSL* const ssl = tls_->ssl.get();
  expect_name(ssl, endpoint.host);
  SSL_set_fd(ssl, socket_);
  while (true) {
    const int result = SSL_connect(ssl);
    if (result == 1) return {};
    const int what = SSL_get_error(ssl, result);
    if (what != SSL_ERROR_WANT_READ && what != SSL_ERROR_WANT_WRITE) {
      return fail(handshake_error(ssl, address_));
    }
    const short events = what == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
    const Woken woken = wait_for(socket_, events, deadline, stop_fd);
    if (woken == Woken::stopped) return fail(stopped());
    if (woken == Woken::deadline) {
      return fail(cannot_connect(address_, "TLS was not agreed upon in time"));
    }
  }
}

Error Transport::gone(std::string_view why) const {
  return {ErrorClass::transient,
          "connection_lost",
          fmt::format("the connection to Redis at {} ended: {}", address_, why),
          "check that the server runs and that this machine reaches it",
          {}};
}

Result<std::size_t> Transport::tls_result(int result) {
  tls_->wants_write = false;
  if (result > 0) return static_cast<std::size_t>(result);
  switch (SSL_get_error(tls_->ssl.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return std::size_t{0};
    case SSL_ERROR_WANT_WRITE:
      tls_->wants_write = true;
      return std::size_t{0};
    case SSL_ERROR_ZERO_RETURN:
      return fail(gone("the server closed it"));
    default:
      return fail(gone(tls_words()));
  }
}

Result<std::size_t> Transport::write(std::string_view bytes) {
  if (bytes.empty()) return std::size_t{0};
  if (tls_) {
    ERR_clear_error();
    const int size = static_cast<int>(std::min<std::size_t>(bytes.size(), 1u << 20));
    return tls_result(SSL_write(tls_->ssl.get(), bytes.data(), size));
  }
  const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  if (sent >= 0) return static_cast<std::size_t>(sent);
  if (errno == EAGAIN || errno == EINTR) return std::size_t{0};
  return fail(gone(system_text(errno)));
}

Result<std::size_t> Transport::read(std::span<char> room) {
  if (tls_) {
    ERR_clear_error();
    return tls_result(SSL_read(tls_->ssl.get(), room.data(), static_cast<int>(room.size())));
  }
  const ssize_t got = ::recv(socket_, room.data(), room.size(), 0);
  if (got > 0) return static_cast<std::size_t>(got);
  if (got == 0) return fail(gone("the server closed it"));
  if (errno == EAGAIN || errno == EINTR) return std::size_t{0};
  return fail(gone(system_text(errno)));
}

Transport::Woken Transport::wait(bool to_write, Deadline deadline, int stop_fd) {
  const bool writing = to_write || (tls_ && tls_->wants_write);
  return wait_for(socket_, static_cast<short>(POLLIN | (writing ? POLLOUT : 0)), deadline, stop_fd);
}

}  // namespace relay::redis
