#pragma once

#include <string>
#include <string_view>

#include "config/option_table.h"
#include "core/error.h"

namespace relay::config {

/// Which servers a client trusts and which certificate it presents. The same for every backend that
/// speaks TLS: its options contain these.
struct TlsOptions {
  std::string tls_ca;
  std::string tls_cert;
  std::string tls_key;
  bool tls_verify = true;  ///< as in the table: a client that is made without one verifies too
};

inline constexpr Option<TlsOptions> kTlsOptions[] = {
    {{.name = "tls_ca",
      .meaning = "file with the authorities to trust (PEM); default: the system's"},
     fills<&TlsOptions::tls_ca>},
    {{.name = "tls_cert", .meaning = "file with the client's certificate chain (PEM)"},
     fills<&TlsOptions::tls_cert>},
    {{.name = "tls_key",
      .meaning = "file with the client's private key (PEM)",
      .host = HostUse::secret_file},
     fills<&TlsOptions::tls_key>},
    {{.name = "tls_verify",
      .type = FieldType::boolean,
      .default_text = "true",
      .meaning = "check the server's certificate and name; turning it off is for tests"},
     fills<&TlsOptions::tls_verify>},
};

/// Warns in the log that the certificate of `peer` is not verified.
void warn_of_no_verification(std::string_view pipeline, std::string_view peer);

/// Misconfigured: a certificate without its key, or a key without its certificate.
Result<void> check_tls(const TlsOptions& options);

}  // namespace relay::config
