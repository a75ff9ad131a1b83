#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"
#include "http/url.h"

namespace relay::http {

/// An HTTP proxy, reached over http or https.
struct Proxy {
  std::string origin;  ///< "http://proxy.example.com:3128"
  std::string user;    ///< empty: none
  std::string password;
  std::string from;  ///< where it was configured, for messages: "proxy" or "HTTPS_PROXY"
};

/// Misconfigured: a scheme that is neither http nor https, no port, or something behind the port.
/// Without a scheme it is http. The error shows nothing of the text.
Result<Proxy> parse_proxy(std::string_view text, std::string_view from);

/// The value of the option `proxy`, checked; "none" is one.
Result<std::string> proxy_option(std::string_view text);

/// Whether a host is in a list as NO_PROXY holds it: names, which stand for their subdomains too,
/// addresses, blocks of addresses (10.0.0.0/8), separated by commas or spaces; "*" is every host.
bool is_in_no_proxy(std::string_view host, std::string_view list);

using Variable = std::function<std::string(const char* name)>;

/// Of this process; empty where it is not set.
std::string environment_variable(const char* name);

/// The proxy for a URL: what the option says (empty: nothing), else the environment, which is read
/// as curl reads it. Misconfigured: a variable that holds no proxy.
Result<std::optional<Proxy>> find_proxy(const Url& url, std::string_view option,
                                        const Variable& variable);

/// Whether `find_proxy` may find one for any URL.
bool may_find_proxy(std::string_view option, const Variable& variable);

/// Keeps the passwords of the proxies that `find_proxy` may find out of everything that is shown.
void remember_proxy_passwords(std::string_view option, const Variable& variable);

}  // namespace relay::http
