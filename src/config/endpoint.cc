#include "config/endpoint.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "core/percent.h"
#include "core/text.h"
#include "core/url_text.h"

namespace relay::config {

namespace {

Result<void> read_credentials(std::string_view text, const UrlForm& form, Endpoint& endpoint) {
  const auto colon = text.find(':');
  const auto user = percent_decoded(text.substr(0, colon));
  if (colon != std::string_view::npos) endpoint.password = percent_decoded(text.substr(colon + 1));
  if (!user || (colon != std::string_view::npos && !endpoint.password)) {
    return fail(bad_url("a % in the credentials begins no two hex digits", form));
  }
  endpoint.user = *user;
  return {};
}

Result<void> read_address(std::string_view text, const UrlForm& form, Endpoint& endpoint) {
  const auto colon = text.rfind(':');
  const bool bracketed = text.starts_with('[');
  const bool has_port = colon != std::string_view::npos &&
                        (bracketed ? text.find(']', colon) == text.npos : text.find(':') == colon);
  auto host = has_port ? text.substr(0, colon) : text;
  if (has_port) {
    const auto port = text.substr(colon + 1);
    const auto end = port.data() + port.size();
    const auto parsed = std::from_chars(port.data(), end, endpoint.port);
    if (parsed.ec != std::errc() || parsed.ptr != end || endpoint.port < 1 ||
        endpoint.port > 65535) {
      // Not shown: it may be a part of a password.
      return fail(
          bad_url("what follows the host is no port; a comma, slash or @ in the credentials "
                  "is written %2C, %2F or %40",
                  form));
    }
  }
  if (host.empty()) return fail(bad_url("it names no host", form));
  endpoint.address = fmt::format("{}:{}", host, endpoint.port);
  if (bracketed && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  endpoint.host = host;
  return {};
}

Result<Endpoint> parse_endpoint(std::string_view url, const UrlForm& form) {
  const UrlForm::Scheme* scheme = &form.schemes.front();
  if (const auto mark = url.find("://"); mark != std::string_view::npos) {
    const auto name = url.substr(0, mark);
    const auto known = std::ranges::find(form.schemes, name, &UrlForm::Scheme::name);
    if (known == form.schemes.end()) {
      return fail(bad_url(secrets::is_url(url) ? fmt::format("the scheme '{}' is not known", name)
                                               : std::string("it begins with no scheme"),
                          form));
    }
    scheme = &*known;
    url.remove_prefix(mark + 3);
  }
  Endpoint endpoint;
  endpoint.tls = scheme->tls;
  endpoint.port = scheme->port;
  if (const auto at = url.rfind('@'); at != std::string_view::npos) {
    // Ambiguous: a password with a slash, or a path with an @.
    if (url.substr(0, at).find_first_of("/?#") != std::string_view::npos) {
      return fail(
          bad_url("it can be read in two ways; in the credentials, / ? and # are written "
                  "%2F, %3F and %23, and in the path @ is written %40",
                  form));
    }
    auto read = read_credentials(url.substr(0, at), form, endpoint);
    if (!read) return fail(read.error());
    url.remove_prefix(at + 1);
  }
  if (const auto slash = url.find('/'); slash != std::string_view::npos) {
    endpoint.path = url.substr(slash + 1);
    url = url.substr(0, slash);
  }
  if (auto read = read_address(url, form, endpoint); !read) return fail(read.error());
  return endpoint;
}

}  // namespace

Error bad_url(std::string_view what, const UrlForm& form) {
  return {ErrorClass::misconfigured,
          "bad_url",
          fmt::format("url: {}", what),
          std::string(form.remedy),
          {}};
}

Result<std::vector<Endpoint>> parse_endpoints(std::string_view urls, const UrlForm& form) {
  std::vector<Endpoint> endpoints;
  while (true) {
    const auto comma = urls.find(',');
    auto endpoint = parse_endpoint(trimmed(urls.substr(0, comma), " "), form);
    if (!endpoint) return fail(endpoint.error());
    endpoints.push_back(std::move(*endpoint));
    if (comma == std::string_view::npos) return endpoints;
    urls.remove_prefix(comma + 1);
  }
}

}  // namespace relay::config
