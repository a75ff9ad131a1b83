#pragma once

#include "backends/nats/options.h"
#include "config/option_table.h"
#include "config/tls.h"

namespace relay::nats {

inline constexpr config::Option<Options> kServerOptions[] = {
    {{.name = "url",
      .default_text = "nats://localhost:4222",
      .meaning = "server: nats://host:port, or tls://host:port; several, separated by "
                 "commas, are tried in turn",
      .secret = true,
      .aliases = "urls,servers"},
     config::fills_with<&parse_endpoints, &Options::endpoints>},
    {{.name = "credentials_file",
      .meaning = "file with the user's JWT and NKey seed (.creds)",
      .host = config::HostUse::secret_file},
     config::fills<&Options::credentials_file>},
    {{.name = "user", .meaning = "user name"}, config::fills<&Options::login, &Login::user>},
    {{.name = "password", .meaning = "password of user", .secret = true},
     config::fills<&Options::login, &Login::password>},
    {{.name = "token", .meaning = "authentication token", .secret = true},
     config::fills<&Options::login, &Login::token>},
    {{.name = "tls",
      .type = config::FieldType::boolean,
      .default_text = "false",
      .meaning = "use TLS; tls:// and tls_ca, tls_cert imply it"},
     config::fills<&Options::tls>},
};

inline constexpr config::Option<Options> kTimeoutOptions[] = {
    {{.name = "connect_timeout",
      .type = config::FieldType::duration,
      .default_text = "5s",
      .meaning = "how long connecting to one server may take",
      .min = 0.01},
     config::fills<&Options::connect_timeout>},
    {{.name = "operation_timeout",
      .type = config::FieldType::duration,
      .default_text = "5s",
      .meaning = "how long asking for a stream, or making a stream or a consumer, may "
                 "take",
      .min = 0.01},
     config::fills<&Options::operation_timeout>},
};

/// The options that sink and source share.
inline constexpr auto kConnectionOptions = config::joined<Options>(
    kServerOptions, config::inherited<Options, config::kTlsOptions>, kTimeoutOptions);

}  // namespace relay::nats
