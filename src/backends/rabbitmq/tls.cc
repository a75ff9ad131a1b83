#include "backends/rabbitmq/tls.h"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "backends/rabbitmq/client_library.h"

namespace relay::rabbitmq {

namespace {

/// The library does not say why it distrusts; the handshake runs in the thread that asks for it.
thread_local long distrusted = X509_V_OK;

int note_distrust(int trusted, X509_STORE_CTX* chain) {
  if (trusted == 0) distrusted = X509_STORE_CTX_get_error(chain);
  return trusted;
}

tl::unexpected<Error> bad_file(std::string_view option, std::string_view path) {
  const unsigned long code = ERR_peek_last_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  ERR_clear_error();
  return fail(ErrorClass::misconfigured, "unreadable_file",
              fmt::format("{}: {} cannot be used: {}", option, path,
                          reason == nullptr ? "it is not what is needed" : reason),
              "correct the path, or let the relay's user read it");
}

bool is_address(const std::string& host) {
  unsigned char ignored[sizeof(in6_addr)];
  return ::inet_pton(AF_INET, host.c_str(), ignored) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), ignored) == 1;
}

}  // namespace

Result<void> set_up_tls(amqp_socket_t_* socket, const ConnectionOptions& options,
                        const Endpoint& endpoint) {
  distrusted = X509_V_OK;
  ERR_clear_error();
  auto* const context = static_cast<SSL_CTX*>(amqp_ssl_socket_get_context(socket));
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  if (options.tls_ca.empty()) {
    SSL_CTX_set_default_verify_paths(context);
  } else if (amqp_ssl_socket_set_cacert(socket, options.tls_ca.c_str()) != AMQP_STATUS_OK) {
    return bad_file("tls_ca", options.tls_ca);
  }
  if (!options.tls_cert.empty() &&
      amqp_ssl_socket_set_key(socket, options.tls_cert.c_str(), options.tls_key.c_str()) !=
          AMQP_STATUS_OK) {
    return bad_file("tls_cert, tls_key", options.tls_cert);
  }
  amqp_ssl_socket_set_verify_hostname(socket, 0);
  amqp_ssl_socket_set_verify_peer(socket, options.tls_verify ? 1 : 0);
  if (!options.tls_verify) return {};
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, &note_distrust);
  X509_VERIFY_PARAM* const expected = SSL_CTX_get0_param(context);
  if (is_address(endpoint.host)) {
    X509_VERIFY_PARAM_set1_ip_asc(expected, endpoint.host.c_str());
  } else {
    X509_VERIFY_PARAM_set1_host(expected, endpoint.host.c_str(), 0);
  }
  return {};
}

const char* distrust() {
  return distrusted == X509_V_OK ? nullptr : X509_verify_cert_error_string(distrusted);
}

}  // namespace relay::rabbitmq
