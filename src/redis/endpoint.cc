#include "redis/endpoint.h"

#include <array>
#include <charconv>
#include <utility>

#include "config/endpoint.h"

namespace relay::redis {

namespace {

constexpr std::array kSchemes = {config::UrlForm::Scheme{"redis", 6379, false},
                                 config::UrlForm::Scheme{"rediss", 6379, true}};
constexpr config::UrlForm kForm = {
    kSchemes, "write it as redis://host:6379/0, or rediss://host:6379/0 for TLS"};
constexpr int kHighestDatabase = 1 << 20;

Result<int> read_database(std::string_view text) {
  int number = 0;
  if (text.empty()) return number;
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end || number < 0 || number > kHighestDatabase) {
    return fail(config::bad_url(fmt::format("'{}' is no number of a database", text), kForm));
  }
  return number;
}

}  // namespace

Result<std::vector<Endpoint>> parse_endpoints(std::string_view urls) {
  auto found = config::parse_endpoints(urls, kForm);
  if (!found) return fail(found.error());
  std::vector<Endpoint> endpoints;
  for (config::Endpoint& place : *found) {
    const auto database = read_database(place.path);
    if (!database) return fail(database.error());
    endpoints.push_back({.host = std::move(place.host),
                         .port = std::to_string(place.port),
                         .address = std::move(place.address),
                         .tls = place.tls,
                         .user = std::move(place.user),
                         .password = place.password.value_or(std::string()),
                         .database = *database});
  }
  return endpoints;
}

}  // namespace relay::redis
