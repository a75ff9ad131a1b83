#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>

#include "aws/identity.h"
#include "backends/kafka/options.h"
#include "config/option_table.h"
#include "config/tls.h"

namespace relay::kafka {

/// What the options say that sink and source share, before it becomes properties of librdkafka.
struct ClientValues : config::TlsOptions {
  std::string brokers;
  std::optional<std::string> security_protocol;
  std::optional<std::string> sasl_mechanism;
  std::optional<std::string> sasl_username;
  std::string sasl_password;
  aws::Identity identity;
  std::optional<std::string> tls_key_password;
  std::chrono::milliseconds connect_timeout{};
  std::map<std::string, std::string> rdkafka;
};

inline constexpr config::Option<ClientValues> kServerOptions[] = {
    {{.name = "brokers",
      .default_text = "localhost:9092",
      .meaning = "host:port of one or more brokers, separated by commas; from these the "
                 "rest of the cluster is learnt",
      .aliases = "bootstrap_servers"},
     config::fills<&ClientValues::brokers>},
    {{.name = "security_protocol",
      .meaning = "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; default: what the sasl_ "
                 "and tls_ options imply"},
     config::fills<&ClientValues::security_protocol>},
    {{.name = "sasl_mechanism",
      .meaning = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, GSSAPI, OAUTHBEARER or AWS_MSK_IAM; "
                 "default PLAIN where sasl_username is set",
      .aliases = "sasl_mechanisms"},
     config::fills<&ClientValues::sasl_mechanism>},
    {{.name = "sasl_username", .meaning = "user name", .aliases = "sasl_user"},
     config::fills<&ClientValues::sasl_username>},
    {{.name = "sasl_password", .meaning = "password of sasl_username", .secret = true},
     config::fills<&ClientValues::sasl_password>},
};

inline constexpr config::Option<ClientValues> kOtherClientOptions[] = {
    {{.name = "tls_key_password", .meaning = "password of the private key", .secret = true},
     config::fills<&ClientValues::tls_key_password>},
    {{.name = "connect_timeout",
      .type = config::FieldType::duration,
      .default_text = "5s",
      .meaning = "how long reaching a first broker may take before that is reported",
      .min = 1,
      .max = 300},
     config::fills<&ClientValues::connect_timeout>},
    {{.name = "rdkafka",
      .type = config::FieldType::map,
      .meaning = "any property of librdkafka, for example "
                 "{\"client.rack\": \"eu-1a\"}",
      .secret = true,
      .host = config::HostUse::properties},
     config::fills<&ClientValues::rdkafka>},
};

/// The options that sink and source share.
inline constexpr auto kClientOptions = config::joined<ClientValues>(
    kServerOptions, config::within<&ClientValues::identity, aws::kIdentityOptions>,
    config::inherited<ClientValues, config::kTlsOptions>, kOtherClientOptions);

/// The properties that `brokers`, `security_protocol`, `sasl_*` and `tls_*` come to.
Result<ClientOptions> client_of(const config::Values& values, const ClientValues& given);

/// Adds those of the option `rdkafka`, which go before the relay's own. Misconfigured: one that has
/// an option of its own, or that would break what the relay promises.
Result<void> add_own_properties(const ClientValues& given, ClientOptions& client);

}  // namespace relay::kafka
