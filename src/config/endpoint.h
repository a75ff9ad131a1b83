#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace relay::config {

/// Where a server is. Credentials are taken out of the URL, so that `address` may be shown.
struct Endpoint {
  std::string host;  ///< without the brackets of an IPv6 address
  int port = 0;
  std::string address;  ///< "host:port"
  bool tls = false;
  std::string user;                     ///< percent-decoded, as is the password
  std::optional<std::string> password;  ///< none: there was no colon behind the user
  std::string path;                     ///< what follows the first slash, as it is written
};

/// How the URLs of a broker look.
struct UrlForm {
  struct Scheme {
    std::string_view name;
    int port;  ///< unless the URL gives one
    bool tls = false;
  };
  std::span<const Scheme> schemes;  ///< the first one is that of a URL without a scheme
  std::string_view remedy;          ///< "write it as nats://host:4222, or tls://host:4222"
};

/// Several URLs are separated by commas: "scheme://user:password@host:port/path", all but the host
/// optional. Misconfigured: anything else; the message holds no credentials.
Result<std::vector<Endpoint>> parse_endpoints(std::string_view urls, const UrlForm& form);

/// The error of a URL, with the form's remedy.
Error bad_url(std::string_view what, const UrlForm& form);

}  // namespace relay::config
