#include "backends/rabbitmq/endpoint.h"

#include <array>
#include <utility>

#include "config/endpoint.h"
#include "core/percent.h"

namespace relay::rabbitmq {

namespace {

constexpr std::array kSchemes = {config::UrlForm::Scheme{"amqp", 5672},
                                 config::UrlForm::Scheme{"amqps", 5671, true}};
constexpr config::UrlForm kForm{
    kSchemes, "write it as amqp://host:5672/vhost, or amqps://host:5671/vhost for TLS"};

}  // namespace

Result<std::vector<Endpoint>> parse_endpoints(std::string_view urls) {
  auto found = config::parse_endpoints(urls, kForm);
  if (!found) return fail(found.error());
  std::vector<Endpoint> endpoints;
  for (config::Endpoint& place : *found) {
    Endpoint endpoint;
    endpoint.host = std::move(place.host);
    endpoint.port = place.port;
    endpoint.address = std::move(place.address);
    endpoint.tls = place.tls;
    if (!place.user.empty() || place.password) {
      endpoint.user = std::move(place.user);
      endpoint.password = place.password.value_or("");
    }
    // amqp://host/ is taken as amqp://host: the vhost with the empty name is hardly ever meant.
    if (!place.path.empty()) {
      auto vhost = percent_decoded(place.path);
      if (!vhost) return fail(config::bad_url("a % in the vhost begins no two hex digits", kForm));
      endpoint.vhost = std::move(*vhost);
    }
    endpoints.push_back(std::move(endpoint));
  }
  return endpoints;
}

}  // namespace relay::rabbitmq
