#include "core/tls_remedy.h"

#include <array>

#include "core/text.h"

namespace relay {

namespace {

struct Known {
  std::string_view words;
  std::string_view remedy;
};

// https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/, and libcurl's and libpq's own words
// of names.
constexpr std::array kKnown = {
    Known{"alert certificate expired",
          "renew the client's certificate (tls_cert): the server says that it has expired"},
    Known{"expired",
          "renew the server's certificate, or that of its authority; it has expired, unless the "
          "clock of this machine is wrong"},
    Known{"not yet valid",
          "correct the clock of this machine, or wait until the server's certificate is valid"},
    Known{"revoked", "give the server another certificate: this one was revoked"},
    Known{"mismatch",
          "use the host name that the certificate is for, or give the server one for this name"},
    Known{"does not match",
          "use the host name that the certificate is for, or give the server one for this name"},
};

}  // namespace

std::string tls_remedy(std::string_view said, std::string_view untrusted) {
  for (const Known& known : kKnown) {
    if (contains_ignoring_case(said, known.words)) return std::string(known.remedy);
  }
  return std::string(untrusted);
}

}  // namespace relay
