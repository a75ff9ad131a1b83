#include "config/tls.h"

#include "core/log.h"

namespace relay::config {

Result<void> check_tls(const TlsOptions& options) {
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return fail(misconfigured("half_a_certificate", "tls_cert and tls_key belong together",
                              "set both, or neither"));
  }
  return {};
}

void warn_of_no_verification(std::string_view pipeline, std::string_view peer) {
  log::warn("tls_not_verified", pipeline,
            "tls_verify is off: an attacker on the way to {} can read and change what is sent",
            peer);
}

}  // namespace relay::config
