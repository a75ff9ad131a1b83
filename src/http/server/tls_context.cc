#include "http/server/tls_context.h"

#include <fmt/core.h>

#include <boost/asio/ssl.hpp>
#include <string_view>

namespace relay::http {

namespace ssl = boost::asio::ssl;
using boost::system::error_code;

Result<std::unique_ptr<ssl::context>> make_tls(const TlsFiles& files) {
  if (files.cert.empty()) return std::unique_ptr<ssl::context>();
  auto context = std::make_unique<ssl::context>(ssl::context::tls_server);
  context->set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 |
                       ssl::context::no_sslv3 | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1);
  const auto refusal = [](std::string_view option, const std::string& file, error_code error) {
    return fail(ErrorClass::misconfigured, "tls_files",
                fmt::format("{}: {} cannot be used: {}", option, file, error.message()),
                "give PEM files that the relay may read, and a key that fits the certificate");
  };
  error_code error;
  context->use_certificate_chain_file(files.cert, error);
  if (error) return refusal("tls_cert", files.cert, error);
  context->use_private_key_file(files.key, ssl::context::pem, error);
  if (error) return refusal("tls_key", files.key, error);
  if (!files.ca.empty()) {
    context->load_verify_file(files.ca, error);
    if (error) return refusal("tls_ca", files.ca, error);
    context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert, error);
  }
  return context;
}

}  // namespace relay::http
