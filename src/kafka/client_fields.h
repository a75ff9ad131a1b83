#pragma once

#include <array>
#include <cstddef>

#include "config/fields.h"

namespace relay::kafka {

/// The options that sink and source share.
inline constexpr std::array kClientFields = {
    config::Field{.name = "brokers",
                  .default_text = "localhost:9092",
                  .meaning =
                      "host:port of one or more brokers, separated by commas; from these the "
                      "rest of the cluster is learnt",
                  .aliases = "bootstrap_servers"},
    config::Field{.name = "security_protocol",
                  .meaning = "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; default: what the sasl_ "
                             "and tls_ options imply"},
    config::Field{.name = "sasl_mechanism",
                  .meaning = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, GSSAPI or OAUTHBEARER; default "
                             "PLAIN where sasl_username is set",
                  .aliases = "sasl_mechanisms"},
    config::Field{.name = "sasl_username", .meaning = "user name", .aliases = "sasl_user"},
    config::Field{.name = "sasl_password", .meaning = "password of sasl_username", .secret = true},
    config::Field{.name = "tls_ca",
                  .meaning = "file with the authorities to trust (PEM); default: the system's"},
    config::Field{.name = "tls_cert", .meaning = "file with the client's certificate chain (PEM)"},
    config::Field{.name = "tls_key", .meaning = "file with the client's private key (PEM)"},
    config::Field{
        .name = "tls_key_password", .meaning = "password of the private key", .secret = true},
    config::Field{.name = "tls_verify",
                  .type = config::FieldType::boolean,
                  .default_text = "true",
                  .meaning = "check the brokers' certificates and names; turning it off is for "
                             "tests"},
    config::Field{.name = "connect_timeout",
                  .type = config::FieldType::duration,
                  .default_text = "5s",
                  .meaning = "how long reaching a first broker may take before that is reported",
                  .min = 1,
                  .max = 300},
    config::Field{.name = "rdkafka",
                  .type = config::FieldType::map,
                  .meaning = "any property of librdkafka, for example "
                             "{\"client.rack\": \"eu-1a\"}",
                  .secret = true},
};

/// The shared options and, behind them, those of one end.
template <std::size_t count>
constexpr auto with_client_fields(const std::array<config::Field, count>& own) {
  std::array<config::Field, kClientFields.size() + count> all{};
  std::size_t filled = 0;
  for (const config::Field& field : kClientFields) all[filled++] = field;
  for (const config::Field& field : own) all[filled++] = field;
  return all;
}

}  // namespace relay::kafka
