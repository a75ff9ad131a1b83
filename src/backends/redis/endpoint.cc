#include "backends/redis/endpoint.h"

#include <fmt/core.h>

#include <array>
#include <charconv>
#include <utility>

#include "config/endpoint.h"

namespace relay::redis {

namespace {

constexpr int kMostDatabases = 1 << 20;
constexpr std::array kSchemes = {config::UrlForm::Scheme{"redis", 6379},
                                 config::UrlForm::Scheme{"rediss", 6379, true}};
constexpr config::UrlForm kForm{kSchemes,
                                "write it as redis://host:6379/0, or rediss://host:6379/0 for TLS"};

bool parse_database(std::string_view text, int& number) {
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  return parsed.ec == std::errc() && parsed.ptr == end && number >= 0 && number <= kMostDatabases;
}

}  // namespace

Result<std::vector<Endpoint>> parse_endpoints(std::string_view urls) {
  auto found = config::parse_endpoints(urls, kForm);
  if (!found) return fail(found.error());
  std::vector<Endpoint> endpoints;
  for (config::Endpoint& place : *found) {
    Endpoint endpoint;
    if (!place.path.empty() && !parse_database(place.path, endpoint.database)) {
      return fail(
          config::bad_url(fmt::format("'{}' is no number of a database", place.path), kForm));
    }
    endpoint.host = std::move(place.host);
    endpoint.port = std::to_string(place.port);
    endpoint.address = std::move(place.address);
    endpoint.tls = place.tls;
    endpoint.user = std::move(place.user);
    endpoint.password = place.password.value_or("");
    endpoints.push_back(std::move(endpoint));
  }
  return endpoints;
}

}  // namespace relay::redis
