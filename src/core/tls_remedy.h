#pragma once

#include <string>
#include <string_view>

namespace relay {

/// The remedy for a certificate that TLS did not accept, chosen by the library's message: about its
/// dates, about its names, or else `untrusted`, which tells how to trust the authority.
std::string tls_remedy(std::string_view said, std::string_view untrusted);

}  // namespace relay
