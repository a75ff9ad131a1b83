#include "http/url.h"

#include <fmt/core.h>

#include <charconv>

#include "core/percent.h"
#include "core/text.h"
#include "core/url_text.h"

namespace relay::http {

namespace {

tl::unexpected<Error> bad_url(std::string_view what) {
  return fail(ErrorClass::misconfigured, "bad_url", fmt::format("url: {}", what),
              "write it as https://host/path");
}

std::string host_of(std::string_view authority) {
  if (authority.starts_with('[')) {
    return std::string(authority.substr(1, authority.find(']') - 1));
  }
  return std::string(authority.substr(0, authority.rfind(':')));
}

bool is_port(std::string_view text) {
  unsigned number = 0;
  const auto end = text.data() + text.size();
  const auto [parsed, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && parsed == end && number > 0 && number <= 65535;
}

}  // namespace

Result<Url> parse_url(std::string_view text) {
  Url url;
  const auto mark = text.find("://");
  if (mark == std::string_view::npos) return bad_url("it does not begin with http:// or https://");
  url.scheme = lower_case(text.substr(0, mark));
  if (url.scheme != "http" && url.scheme != "https") {
    return bad_url(secrets::is_url(text)
                       ? fmt::format("the scheme '{}' is neither http nor https", url.scheme)
                       : std::string("it does not begin with http:// or https://"));
  }
  text.remove_prefix(mark + 3);
  const auto slash = std::min(text.find_first_of("/?#"), text.size());
  std::string_view authority = text.substr(0, slash);
  url.rest = text.substr(slash);
  if (const auto fragment = url.rest.find('#'); fragment != std::string::npos) {
    url.rest.resize(fragment);
  }
  const bool has_port =
      authority.find(':') != std::string_view::npos && !authority.starts_with('[');
  if (has_port && url.rest.find('@') != std::string::npos &&
      (authority.find('@') == std::string_view::npos || authority.ends_with('@'))) {
    return bad_url(
        "it can be read in two ways; in the credentials, / ? and # are written %2F, %3F and %23, "
        "and behind the host @ is written %40");
  }
  if (const auto at = authority.rfind('@'); at != std::string_view::npos) {
    const auto credentials = authority.substr(0, at);
    const auto colon = std::min(credentials.find(':'), credentials.size());
    const auto user = percent_decoded(credentials.substr(0, colon));
    const auto password =
        percent_decoded(credentials.substr(std::min(colon + 1, credentials.size())));
    if (!user || !password) return bad_url("a % in the credentials begins no two hex digits");
    url.user = *user;
    url.password = *password;
    authority.remove_prefix(at + 1);
  }
  url.authority = authority;
  url.host = host_of(authority);
  if (url.host.empty()) return bad_url("it names no host");
  const auto behind = authority.rfind(']');
  const auto colon = authority.find(':', behind == std::string_view::npos ? 0 : behind);
  if (colon != std::string_view::npos && authority.find('{') == std::string_view::npos &&
      !is_port(authority.substr(colon + 1))) {
    return bad_url("what follows the host is no port");
  }
  return url;
}

std::string origin_of(std::string_view url) {
  const auto parsed = parse_url(url);
  return parsed ? parsed->origin() : std::string("the endpoint");
}

}  // namespace relay::http
