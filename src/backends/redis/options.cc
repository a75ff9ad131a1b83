#include "backends/redis/options.h"

#include <fmt/core.h>

#include <utility>

#include "config/option_table.h"
#include "connector/field_mapping.h"

namespace relay::redis {

namespace {

using config::FieldType;
using config::fills;
using config::fills_choice;
using config::fills_nothing;
using config::fills_with;
using config::Option;

constexpr Option<ConnectionOptions> kServerOptions[] = {
    {{.name = "url",
      .default_text = "redis://localhost:6379",
      .meaning = "server: redis://host:port/database, or rediss:// for TLS; several, separated "
                 "by commas, are tried in turn",
      .secret = true,
      .aliases = "urls"},
     fills_with<&parse_endpoints, &ConnectionOptions::endpoints>},
    {{.name = "user", .meaning = "user name; none: the default user"},
     fills<&ConnectionOptions::login, &Login::user>},
    {{.name = "password", .meaning = "password", .secret = true},
     fills<&ConnectionOptions::login, &Login::password>},
    {{.name = "database",
      .type = FieldType::integer,
      .default_text = "0",
      .meaning = "number of the database; goes before that of url",
      .aliases = "db",
      .min = 0,
      .max = 1 << 20},
     fills<&ConnectionOptions::login, &Login::database>},
};

constexpr Option<ConnectionOptions> kTimeoutOptions[] = {
    {{.name = "connect_timeout",
      .type = FieldType::duration,
      .default_text = "5s",
      .meaning = "how long connecting to one server may take",
      .min = 0.01},
     fills<&ConnectionOptions::connect_timeout>},
    {{.name = "response_timeout",
      .type = FieldType::duration,
      .default_text = "5s",
      .meaning = "a server that is silent for that long while it owes an answer is given up",
      .min = 0.01},
     fills<&ConnectionOptions::response_timeout>},
};

constexpr config::Choice<FieldMode> kFieldModes[] = {{"payload", FieldMode::payload},
                                                     {"columns", FieldMode::columns}};

constexpr Option<SinkOptions> kOwnSinkOptions[] = {
    // The registry reads stream_key: it is the sink's name of subject_template.
    {{.name = "stream_key",
      .meaning = "key of the stream, or template of it; default {stream_table}"},
     fills_nothing},
    {{.name = "maxlen",
      .type = FieldType::integer,
      .meaning = "trim a stream to about that many entries (MAXLEN ~); default: never",
      .min = 1},
     fills<&SinkOptions::maxlen>},
    {{.name = "field_mode",
      .type = FieldType::choice,
      .default_text = "payload",
      .meaning = "payload: the message is one field; columns: one field a column of the row",
      .choices = "payload,columns"},
     fills_choice<kFieldModes, &SinkOptions::field_mode>},
    {{.name = "max_in_flight",
      .type = FieldType::integer,
      .default_text = "1000",
      .meaning = "messages sent and not yet answered",
      .min = 1,
      .max = 100000},
     fills<&SinkOptions::max_in_flight>},
    {{.name = "max_message_bytes",
      .type = FieldType::bytes,
      .default_text = "512MiB",
      .meaning = "a larger body is rejected; the server's own proto-max-bulk-len, where it may "
                 "be asked for, lowers it",
      .min = 1,
      .max = 512.0 * 1024 * 1024},
     fills<&SinkOptions::max_message_bytes>},
};

constexpr Option<SourceOptions> kOwnSourceOptions[] = {
    {{.name = "stream_key", .meaning = "key of the stream to read", .required = true},
     fills<&SourceOptions::stream_key>},
    {{.name = "group",
      .meaning = "consumer group, made where it is absent; default: "
                 "pgtrickle-<relay group>-<pipeline>"},
     fills<&SourceOptions::group>},
    {{.name = "consumer", .meaning = "name in the group; default: the host's name"},
     fills<&SourceOptions::consumer>},
    {{.name = "start",
      .default_text = "0",
      .meaning = "where a group that is made begins: 0 (all there is), $ (what comes from now "
                 "on), or the id of an entry"},
     fills<&SourceOptions::start>},
    {{.name = "count",
      .type = FieldType::integer,
      .default_text = "500",
      .meaning = "entries read at once, at most",
      .min = 1,
      .max = 100000},
     fills<&SourceOptions::count>},
    {{.name = "claim_idle",
      .type = FieldType::duration,
      .default_text = "60s",
      .meaning = "entries that another consumer of the group took and did not acknowledge for "
                 "that long are taken over",
      .min = 0.1},
     fills<&SourceOptions::claim_idle>},
    {{.name = "consumer_idle",
      .type = FieldType::duration,
      .default_text = "1h",
      .meaning = "another consumer of the group that did nothing for that long, and holds no "
                 "entry, is removed from it; 0: never",
      .min = 0},
     fills<&SourceOptions::consumer_idle>},
    {{.name = "payload_field",
      .default_text = "payload",
      .meaning = "field that is the event; an entry without it becomes a JSON object of its "
                 "fields"},
     fills<&SourceOptions::payload_field>},
};

constexpr auto kConnectionOptions = config::joined<ConnectionOptions>(
    kServerOptions, config::inherited<ConnectionOptions, config::kTlsOptions>, kTimeoutOptions);
constexpr auto kSinkOptions = config::joined<SinkOptions>(
    config::within<&SinkOptions::connection, kConnectionOptions>, kOwnSinkOptions);
constexpr auto kSourceOptions = config::joined<SourceOptions>(
    config::within<&SourceOptions::connection, kConnectionOptions>, kOwnSourceOptions);
constexpr auto kSinkFields = config::fields_of(kSinkOptions);
constexpr auto kSourceFields = with_mapping_fields(kSourceOptions);

/// Puts the login into the endpoints, and checks what belongs together.
Result<void> complete(ConnectionOptions& options, const config::Values& values) {
  if (auto checked = config::check_tls(options); !checked) return checked;
  const bool about_tls = !options.tls_ca.empty() || !options.tls_cert.empty();
  for (Endpoint& endpoint : options.endpoints) {
    if (about_tls && !endpoint.tls) {
      return fail(misconfigured("tls_without_rediss",
                                fmt::format("tls_ca or tls_cert is set, but the url of {} does not "
                                            "ask for TLS",
                                            endpoint.address),
                                "write the url with rediss://"));
    }
    if (options.login.user) endpoint.user = *options.login.user;
    if (options.login.password) endpoint.password = *options.login.password;
    if (values.has("database")) endpoint.database = options.login.database;
    if (!endpoint.user.empty() && endpoint.password.empty()) {
      return fail(misconfigured("no_password", "a user is given, but no password",
                                "set password, or write redis://:password@host for the default "
                                "user"));
    }
  }
  return {};
}

}  // namespace

config::FieldTable sink_fields() {
  return kSinkFields;
}

config::FieldTable source_fields() {
  return kSourceFields;
}

Result<SinkOptions> parse_sink_options(const config::Values& values) {
  auto options = config::filled<SinkOptions>(kSinkOptions, values);
  if (!options) return options;
  if (auto done = complete(options->connection, values); !done) return fail(done.error());
  return options;
}

Result<SourceOptions> parse_source_options(const config::Values& values, std::string group,
                                           std::string consumer) {
  auto options = config::filled<SourceOptions>(kSourceOptions, values);
  if (!options) return options;
  if (auto done = complete(options->connection, values); !done) return fail(done.error());
  if (!values.has("group")) options->group = std::move(group);
  if (!values.has("consumer")) options->consumer = std::move(consumer);
  return options;
}

}  // namespace relay::redis
