#pragma once

#include <string>
#include <string_view>

namespace relay {

/// What mends a certificate that TLS did not accept, by what the library said of it: a date, a
/// name, or else `untrusted`, which tells how to trust the authority.
std::string tls_remedy(std::string_view said, std::string_view untrusted);

}  // namespace relay
