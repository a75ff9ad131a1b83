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

/// The place of JetStream's API, and of the answers.
inline constexpr config::Option<Options> kPlaceOptions[] = {
    {{.name = "domain",
      .meaning = "JetStream's domain, where it is another one than that of the server in url, as "
                 "behind a leaf node"},
     config::fills<&Options::domain>},
    {{.name = "api_prefix",
      .meaning = "prefix of JetStream's API, where an account imports it under another one than "
                 "$JS.API"},
     config::fills<&Options::api_prefix>},
    {{.name = "inbox_prefix",
      .default_text = "_INBOX",
      .meaning = "prefix of the subjects on which the server answers, as the user's permissions "
                 "name it"},
     config::fills<&Options::inbox_prefix>},
};

/// Of a stream that create_stream makes.
inline constexpr config::Option<Options> kNewStreamOptions[] = {
    {{.name = "stream_subjects",
      .type = config::FieldType::list,
      .meaning = "the subjects of a stream that create_stream makes; default: what subject can "
                 "become, of a source <stream>.> where it has no subject"},
     config::fills<&Options::stream_subjects>},
    {{.name = "stream_replicas",
      .type = config::FieldType::integer,
      .default_text = "1",
      .meaning = "replicas of a stream that create_stream makes",
      .min = 1,
      .max = 5},
     config::fills<&Options::limits, &StreamLimits::replicas>},
    {{.name = "stream_max_age",
      .type = config::FieldType::duration,
      .meaning = "a stream that create_stream makes drops messages that are older",
      .min = 0.1},
     config::fills<&Options::limits, &StreamLimits::max_age>},
    {{.name = "stream_max_bytes",
      .type = config::FieldType::bytes,
      .meaning = "a stream that create_stream makes drops the oldest messages beyond so many bytes",
      .min = 1},
     config::fills<&Options::limits, &StreamLimits::max_bytes>},
    {{.name = "stream_max_messages",
      .type = config::FieldType::integer,
      .meaning = "a stream that create_stream makes drops the oldest messages beyond so many",
      .min = 1},
     config::fills<&Options::limits, &StreamLimits::max_messages>},
    {{.name = "stream_duplicate_window",
      .type = config::FieldType::duration,
      .meaning = "how long a stream that create_stream makes knows the ids of messages; at most "
                 "stream_max_age",
      .min = 0.1},
     config::fills<&Options::limits, &StreamLimits::duplicate_window>},
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
inline constexpr auto kConnectionOptions =
    config::joined<Options>(kServerOptions, config::inherited<Options, config::kTlsOptions>,
                            kPlaceOptions, kNewStreamOptions, kTimeoutOptions);

}  // namespace relay::nats
