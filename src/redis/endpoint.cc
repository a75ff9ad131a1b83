#include "redis/endpoint.h"

#include <charconv>
#include <optional>
#include <utility>

namespace relay::redis {

namespace {

Error bad_url(std::string_view what) {
  return {ErrorClass::misconfigured,
          "bad_url",
          fmt::format("url: {}", what),
          "write it as redis://host:6379/0, or rediss://host:6379/0 for TLS",
          {}};
}

std::optional<std::string> percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    unsigned value = 0;
    const auto digits = text.substr(i + 1, 2);
    const auto end = digits.data() + digits.size();
    if (digits.size() != 2 || std::from_chars(digits.data(), end, value, 16).ptr != end) {
      return std::nullopt;
    }
    out.push_back(static_cast<char>(value));
    i += 2;
  }
  return out;
}

bool parse_number(std::string_view text, int least, int most, int& number) {
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  return parsed.ec == std::errc() && parsed.ptr == end && number >= least && number <= most;
}

Result<void> read_credentials(std::string_view text, Endpoint& endpoint) {
  const auto colon = text.find(':');
  const auto user = percent_decoded(text.substr(0, colon));
  const auto password =
      colon == std::string_view::npos ? std::string() : percent_decoded(text.substr(colon + 1));
  if (!user || !password) return fail(bad_url("a % in the credentials begins no two hex digits"));
  endpoint.user = *user;
  endpoint.password = *password;
  return {};
}

Result<void> read_address(std::string_view text, Endpoint& endpoint) {
  const auto colon = text.rfind(':');
  const bool bracketed = text.starts_with('[');
  const bool has_port = colon != std::string_view::npos &&
                        (bracketed ? text.find(']', colon) == text.npos : text.find(':') == colon);
  auto host = has_port ? text.substr(0, colon) : text;
  const auto port = has_port ? text.substr(colon + 1) : std::string_view("6379");
  int number = 0;
  if (!parse_number(port, 1, 65535, number)) {
    return fail(bad_url(fmt::format("'{}' is no port", port)));
  }
  if (host.empty()) return fail(bad_url("it names no host"));
  endpoint.port = port;
  endpoint.address = fmt::format("{}:{}", host, number);
  if (bracketed && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  endpoint.host = host;
  return {};
}

Result<Endpoint> parse_endpoint(std::string_view url) {
  Endpoint endpoint;
  if (const auto scheme = url.find("://"); scheme != std::string_view::npos) {
    const auto name = url.substr(0, scheme);
    if (name != "redis" && name != "rediss") {
      return fail(bad_url(fmt::format("the scheme '{}' is not known", name)));
    }
    endpoint.tls = name == "rediss";
    url.remove_prefix(scheme + 3);
  }
  if (const auto at = url.rfind('@'); at != std::string_view::npos) {
    if (auto read = read_credentials(url.substr(0, at), endpoint); !read) return fail(read.error());
    url.remove_prefix(at + 1);
  }
  if (const auto slash = url.find('/'); slash != std::string_view::npos) {
    const auto database = url.substr(slash + 1);
    if (!database.empty() && !parse_number(database, 0, 1 << 20, endpoint.database)) {
      return fail(bad_url(fmt::format("'{}' is no number of a database", database)));
    }
    url = url.substr(0, slash);
  }
  if (url.empty()) return fail(bad_url("it names no host"));
  if (auto read = read_address(url, endpoint); !read) return fail(read.error());
  return endpoint;
}

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

}  // namespace

Result<std::vector<Endpoint>> parse_endpoints(std::string_view urls) {
  std::vector<Endpoint> endpoints;
  while (true) {
    const auto comma = urls.find(',');
    auto endpoint = parse_endpoint(trimmed(urls.substr(0, comma)));
    if (!endpoint) return fail(endpoint.error());
    endpoints.push_back(std::move(*endpoint));
    if (comma == std::string_view::npos) return endpoints;
    urls.remove_prefix(comma + 1);
  }
}

}  // namespace relay::redis
