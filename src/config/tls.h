#pragma once

#include <array>
#include <string>
#include <string_view>

#include "config/fields.h"
#include "core/error.h"

namespace relay::config {

/// The options that say which servers a client trusts and which certificate it presents. The same
/// for every backend that speaks TLS.
inline constexpr std::array kTlsFields = {
    Field{.name = "tls_ca",
          .meaning = "file with the authorities to trust (PEM); default: the system's"},
    Field{.name = "tls_cert", .meaning = "file with the client's certificate chain (PEM)"},
    Field{.name = "tls_key",
          .meaning = "file with the client's private key (PEM)",
          .host = HostUse::secret_file},
    Field{.name = "tls_verify",
          .type = FieldType::boolean,
          .default_text = "true",
          .meaning = "check the server's certificate and name; turning it off is for tests"},
};

/// The values of these fields; a backend's options contain them.
struct TlsOptions {
  std::string tls_ca;
  std::string tls_cert;
  std::string tls_key;
  bool tls_verify = true;
};

/// Warns in the log that the certificate of `peer` is not verified.
void warn_of_no_verification(std::string_view pipeline, std::string_view peer);

/// Misconfigured: a certificate without its key, or a key without its certificate.
Result<void> read_tls(const Values& values, TlsOptions& options);

}  // namespace relay::config
