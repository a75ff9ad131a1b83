#pragma once

#include <string>
#include <string_view>

#include "core/error.h"

namespace relay::http {

/// The parts of an http or https address. Braces of a template may stand anywhere.
struct Url {
  std::string scheme;     ///< "https"
  std::string user;       ///< decoded; empty: none
  std::string password;   ///< decoded
  std::string host;       ///< without brackets
  std::string authority;  ///< "host:port" as written
  std::string rest;       ///< path and query, as written: "/a?b=c"

  /// "https://host:port": what may be shown. Paths and queries may hold secrets.
  std::string origin() const { return scheme + "://" + authority; }
  std::string without_credentials() const { return origin() + rest; }
};

/// Misconfigured: another scheme, no host, malformed credentials, characters no URL may have. The
/// error shows nothing of the text but its scheme.
Result<Url> parse_url(std::string_view text);

/// The origin of a URL that is being used, for messages.
std::string origin_of(std::string_view url);

}  // namespace relay::http
