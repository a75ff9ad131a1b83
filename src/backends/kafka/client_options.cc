// What sink and source need to reach the cluster, as properties of librdkafka.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "backends/kafka/client_values.h"
#include "backends/kafka/iam_tokens.h"
#include "backends/kafka/options.h"
#include "backends/kafka/statistics.h"
#include "config/tls.h"

namespace relay::kafka {

namespace {

std::string upper(std::string text) {
  std::ranges::transform(text, text.begin(), [](char c) {
    return static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  });
  return text;
}

/// Properties that are set by an option of their own, or that the relay's promises rest on.
struct Taken {
  std::string_view property;
  std::string_view instead;
};
constexpr std::array kTaken = {
    Taken{"bootstrap.servers", "use brokers"},
    Taken{"metadata.broker.list", "use brokers"},
    Taken{"security.protocol", "use security_protocol"},
    Taken{"sasl.mechanism", "use sasl_mechanism"},
    Taken{"sasl.mechanisms", "use sasl_mechanism"},
    Taken{"sasl.username", "use sasl_username"},
    Taken{"sasl.password", "use sasl_password"},
    Taken{"ssl.ca.location", "use tls_ca"},
    Taken{"ssl.certificate.location", "use tls_cert"},
    Taken{"ssl.key.location", "use tls_key"},
    Taken{"ssl.key.password", "use tls_key_password"},
    Taken{"enable.ssl.certificate.verification", "use tls_verify"},
    Taken{"acks", "use acks"},
    Taken{"request.required.acks", "use acks"},
    Taken{"compression.codec", "use compression"},
    Taken{"compression.type", "use compression"},
    Taken{"linger.ms", "use linger_ms"},
    Taken{"queue.buffering.max.ms", "use linger_ms"},
    Taken{"queue.buffering.max.messages", "use max_in_flight"},
    Taken{"message.max.bytes", "use max_message_bytes"},
    Taken{"message.timeout.ms", "use delivery_timeout"},
    Taken{"delivery.timeout.ms", "use delivery_timeout"},
    Taken{"transactional.id", "leave it out: the relay sends without transactions"},
    Taken{"group.id", "use group_id"},
    Taken{"auto.offset.reset", "use auto_offset_reset"},
    Taken{"enable.auto.commit", "leave it out: offsets are committed once they are settled"},
    Taken{"enable.auto.offset.store", "leave it out: offsets are committed once they are settled"},
};

constexpr std::string_view kIam = "AWS_MSK_IAM";

bool is_iam(const ClientValues& given) {
  return upper(given.sasl_mechanism.value_or("")) == kIam;
}

/// What contradicts the way in which the client proves who it is.
Result<void> check_identity(const config::Values& values, const ClientValues& given) {
  const auto contradiction = [](std::string_view option, std::string_view what,
                                std::string_view remedy) {
    return fail(
        misconfigured("contradiction",
                      fmt::format("{} is set, but sasl_mechanism is {}AWS_MSK_IAM", option, what),
                      std::string(remedy)));
  };
  for (const char* option : {"sasl_username", "sasl_password"}) {
    if (is_iam(given) && values.has(option)) {
      return contradiction(option, "", "leave it out: AWS credentials say who asks");
    }
  }
  for (const auto& row : aws::kIdentityOptions) {
    if (!is_iam(given) && values.has(row.field.name)) {
      return contradiction(row.field.name, "not ",
                           "set sasl_mechanism to AWS_MSK_IAM, or leave it out");
    }
  }
  return aws::check_identity(given.identity);
}

std::string implied_protocol(const config::Values& values, const ClientValues& given) {
  const bool sasl = given.sasl_mechanism || given.sasl_username;
  const bool tls = values.has("tls_ca") || values.has("tls_cert");
  if (is_iam(given)) return "SASL_SSL";
  if (sasl) return tls ? "SASL_SSL" : "SASL_PLAINTEXT";
  return tls ? "SSL" : "PLAINTEXT";
}

Result<std::string> protocol_of(const config::Values& values, const ClientValues& options) {
  const std::string implied = implied_protocol(values, options);
  if (!options.security_protocol) return implied;
  const std::string given = upper(*options.security_protocol);
  constexpr std::array<std::string_view, 4> kKnown = {"PLAINTEXT", "SSL", "SASL_PLAINTEXT",
                                                      "SASL_SSL"};
  if (std::ranges::find(kKnown, given) == kKnown.end()) {
    return fail(misconfigured(
        "bad_security_protocol",
        fmt::format("security_protocol: '{}' is not known", *options.security_protocol),
        "use PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"));
  }
  if (implied.starts_with("SASL") && !given.starts_with("SASL")) {
    return fail(misconfigured(
        "contradiction", fmt::format("sasl_ options are set, but security_protocol is {}", given),
        "use SASL_SSL or SASL_PLAINTEXT, or leave the sasl_ options out"));
  }
  if (is_iam(options) && given != implied) {
    return fail(
        misconfigured("contradiction",
                      fmt::format("sasl_mechanism is {}, but security_protocol is {}", kIam, given),
                      "use SASL_SSL: who reads a token on its way can use it"));
  }
  if (implied.ends_with("SSL") && !given.ends_with("SSL")) {
    return fail(misconfigured(
        "contradiction", fmt::format("tls_ options are set, but security_protocol is {}", given),
        "use SSL or SASL_SSL, or leave the tls_ options out"));
  }
  return given;
}

void add_sasl(const ClientValues& given, ClientOptions& client) {
  if (is_iam(given)) {
    client.iam = given.identity;
    if (client.iam->region.empty()) client.iam->region = region_of_brokers(client.brokers);
    client.properties.emplace_back("sasl.mechanisms", "OAUTHBEARER");
    return;
  }
  client.properties.emplace_back("sasl.mechanisms", upper(given.sasl_mechanism.value_or("PLAIN")));
  if (given.sasl_username) {
    client.properties.emplace_back("sasl.username", *given.sasl_username);
    client.properties.emplace_back("sasl.password", given.sasl_password);
  }
}

void add_tls(const config::Values& values, const ClientValues& given, ClientOptions& client) {
  const auto add_file = [&](const char* option, const std::string& file, const char* name) {
    if (!values.has(option)) return;
    client.files.emplace_back(option, file);
    client.properties.emplace_back(name, file);
  };
  add_file("tls_ca", given.tls_ca, "ssl.ca.location");
  add_file("tls_cert", given.tls_cert, "ssl.certificate.location");
  add_file("tls_key", given.tls_key, "ssl.key.location");
  if (given.tls_key_password) {
    client.properties.emplace_back("ssl.key.password", *given.tls_key_password);
  }
  client.tls_verify = given.tls_verify;
  client.properties.emplace_back("enable.ssl.certificate.verification",
                                 client.tls_verify ? "true" : "false");
  client.properties.emplace_back("ssl.endpoint.identification.algorithm",
                                 client.tls_verify ? "https" : "none");
}

}  // namespace

Result<ClientOptions> client_of(const config::Values& values, const ClientValues& given) {
  ClientOptions client;
  client.brokers = given.brokers;
  client.connect_timeout = given.connect_timeout;
  if (client.brokers.find_first_not_of(" ,") == std::string::npos) {
    return fail(misconfigured("no_brokers", "brokers names no broker",
                              "write it as host:9092, several separated by commas"));
  }
  if (auto checked = check_identity(values, given); !checked) return fail(checked.error());
  const auto protocol = protocol_of(values, given);
  if (!protocol) return fail(protocol.error());
  if (auto checked = config::check_tls(given); !checked) return fail(checked.error());
  client.properties = {
      {"bootstrap.servers", client.brokers},
      {"security.protocol", *protocol},
      {"socket.connection.setup.timeout.ms", std::to_string(client.connect_timeout.count())},
      {"socket.keepalive.enable", "true"},
      {"reconnect.backoff.ms", "50"},
      // Without it a broker that comes back is noticed many seconds late.
      {"reconnect.backoff.max.ms", "500"},
      {"log.connection.close", "false"},
      {"statistics.interval.ms", std::string(kStatisticsEveryMs)},
  };
  if (protocol->starts_with("SASL")) add_sasl(given, client);
  if (protocol->ends_with("SSL")) add_tls(values, given, client);
  return client;
}

Result<void> add_own_properties(const ClientValues& given, ClientOptions& client) {
  for (const auto& [name, value] : given.rdkafka) {
    const auto taken = std::ranges::find(kTaken, name, &Taken::property);
    if (taken != kTaken.end()) {
      return fail(misconfigured("property_taken",
                                fmt::format("rdkafka: {} cannot be set there", name),
                                std::string(taken->instead)));
    }
    client.properties.emplace_back(name, value);
  }
  return {};
}

std::string_view property(const ClientOptions& client, std::string_view name) {
  std::string_view found;
  for (const auto& [known, value] : client.properties) {
    if (known == name) found = value;
  }
  return found;
}

}  // namespace relay::kafka
