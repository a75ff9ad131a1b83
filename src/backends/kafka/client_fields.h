#pragma once

#include <array>

#include "config/field_tables.h"
#include "config/tls.h"

namespace relay::kafka {

inline constexpr std::array kServerFields = {
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
};

inline constexpr std::array kOtherClientFields = {
    config::Field{
        .name = "tls_key_password", .meaning = "password of the private key", .secret = true},
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
                  .secret = true,
                  .host = config::HostUse::properties},
};

/// The options that sink and source share.
inline constexpr auto kClientFields =
    config::joined(kServerFields, config::kTlsFields, kOtherClientFields);

}  // namespace relay::kafka
