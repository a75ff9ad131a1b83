#pragma once

#include <array>

#include "config/field_tables.h"
#include "config/tls.h"

namespace relay::nats {

inline constexpr std::array kServerFields = {
    config::Field{.name = "url",
                  .default_text = "nats://localhost:4222",
                  .meaning = "server: nats://host:port, or tls://host:port; several, separated by "
                             "commas, are tried in turn",
                  .secret = true,
                  .aliases = "urls,servers"},
    config::Field{.name = "credentials_file",
                  .meaning = "file with the user's JWT and NKey seed (.creds)",
                  .host = config::HostUse::secret_file},
    config::Field{.name = "user", .meaning = "user name"},
    config::Field{.name = "password", .meaning = "password of user", .secret = true},
    config::Field{.name = "token", .meaning = "authentication token", .secret = true},
    config::Field{.name = "tls",
                  .type = config::FieldType::boolean,
                  .default_text = "false",
                  .meaning = "use TLS; tls:// and tls_ca, tls_cert imply it"},
};

inline constexpr std::array kTimeoutFields = {
    config::Field{.name = "connect_timeout",
                  .type = config::FieldType::duration,
                  .default_text = "5s",
                  .meaning = "how long connecting to one server may take",
                  .min = 0.01},
    config::Field{.name = "operation_timeout",
                  .type = config::FieldType::duration,
                  .default_text = "5s",
                  .meaning = "how long asking for a stream, or making a stream or a consumer, may "
                             "take",
                  .min = 0.01},
};

/// The options that sink and source share.
inline constexpr auto kConnectionFields =
    config::joined(kServerFields, config::kTlsFields, kTimeoutFields);

}  // namespace relay::nats
