#include "backends/redis/options.h"

#include <fmt/core.h>

#include <array>
#include <utility>

#include "config/field_tables.h"
#include "connector/field_mapping.h"

namespace relay::redis {

namespace {

using config::Field;
using config::FieldType;

constexpr std::array kServerFields = {
    Field{.name = "url",
          .default_text = "redis://localhost:6379",
          .meaning = "server: redis://host:port/database, or rediss:// for TLS; several, separated "
                     "by commas, are tried in turn",
          .secret = true,
          .aliases = "urls"},
    Field{.name = "user", .meaning = "user name; none: the default user"},
    Field{.name = "password", .meaning = "password", .secret = true},
    Field{.name = "database",
          .type = FieldType::integer,
          .default_text = "0",
          .meaning = "number of the database; goes before that of url",
          .aliases = "db",
          .min = 0,
          .max = 1 << 20},
};

constexpr std::array kTimeoutFields = {
    Field{.name = "connect_timeout",
          .type = FieldType::duration,
          .default_text = "5s",
          .meaning = "how long connecting to one server may take",
          .min = 0.01},
    Field{.name = "response_timeout",
          .type = FieldType::duration,
          .default_text = "5s",
          .meaning = "a server that is silent for that long while it owes an answer is given up",
          .min = 0.01},
};

constexpr std::array kOwnSinkFields = {
    Field{.name = "stream_key",
          .meaning = "key of the stream, or template of it; default {stream_table}"},
    Field{.name = "maxlen",
          .type = FieldType::integer,
          .meaning = "trim a stream to about that many entries (MAXLEN ~); default: never",
          .min = 1},
    Field{.name = "field_mode",
          .type = FieldType::choice,
          .default_text = "payload",
          .meaning = "payload: the message is one field; columns: one field a column of the row",
          .choices = "payload,columns"},
    Field{.name = "max_in_flight",
          .type = FieldType::integer,
          .default_text = "1000",
          .meaning = "messages sent and not yet answered",
          .min = 1,
          .max = 100000},
    Field{.name = "max_message_bytes",
          .type = FieldType::bytes,
          .default_text = "512MiB",
          .meaning = "a larger body is rejected; the server's own proto-max-bulk-len, where it may "
                     "be asked for, lowers it",
          .min = 1,
          .max = 512.0 * 1024 * 1024},
};

constexpr std::array kOwnSourceFields = {
    Field{.name = "stream_key", .meaning = "key of the stream to read", .required = true},
    Field{.name = "group",
          .meaning = "consumer group, made where it is absent; default: "
                     "pgtrickle-<relay group>-<pipeline>"},
    Field{.name = "consumer", .meaning = "name in the group; default: the host's name"},
    Field{.name = "start",
          .default_text = "0",
          .meaning = "where a group that is made begins: 0 (all there is), $ (what comes from now "
                     "on), or the id of an entry"},
    Field{.name = "count",
          .type = FieldType::integer,
          .default_text = "500",
          .meaning = "entries read at once, at most",
          .min = 1,
          .max = 100000},
    Field{.name = "claim_idle",
          .type = FieldType::duration,
          .default_text = "60s",
          .meaning = "entries that another consumer of the group took and did not acknowledge for "
                     "that long are taken over",
          .min = 0.1},
    Field{.name = "payload_field",
          .default_text = "payload",
          .meaning = "field that is the event; an entry without it becomes a JSON object of its "
                     "fields"},
};

constexpr auto kConnectionFields =
    config::joined(kServerFields, config::kTlsFields, kTimeoutFields);
constexpr auto kSinkFields = config::joined(kConnectionFields, kOwnSinkFields);
constexpr auto kSourceFields =
    with_mapping_fields(config::joined(kConnectionFields, kOwnSourceFields));

Result<ConnectionOptions> parse_connection(const config::Values& values) {
  ConnectionOptions options;
  auto endpoints = parse_endpoints(values.text("url"));
  if (!endpoints) return fail(endpoints.error());
  options.endpoints = std::move(*endpoints);
  options.connect_timeout = values.duration("connect_timeout");
  options.response_timeout = values.duration("response_timeout");
  if (auto read = config::read_tls(values, options); !read) return fail(read.error());
  const bool about_tls = !options.tls_ca.empty() || !options.tls_cert.empty();
  for (Endpoint& endpoint : options.endpoints) {
    if (about_tls && !endpoint.tls) {
      return fail(misconfigured("tls_without_rediss",
                                fmt::format("tls_ca or tls_cert is set, but the url of {} does not "
                                            "ask for TLS",
                                            endpoint.address),
                                "write the url with rediss://"));
    }
    if (values.has("user")) endpoint.user = values.text("user");
    if (values.has("password")) endpoint.password = values.text("password");
    if (values.has("database")) endpoint.database = static_cast<int>(values.integer("database"));
    if (!endpoint.user.empty() && endpoint.password.empty()) {
      return fail(misconfigured("no_password", "a user is given, but no password",
                                "set password, or write redis://:password@host for the default "
                                "user"));
    }
  }
  return options;
}

}  // namespace

config::FieldTable sink_fields() {
  return kSinkFields;
}

config::FieldTable source_fields() {
  return kSourceFields;
}

Result<SinkOptions> parse_sink_options(const config::Values& values) {
  SinkOptions options;
  auto connection = parse_connection(values);
  if (!connection) return fail(connection.error());
  options.connection = std::move(*connection);
  if (values.has("maxlen")) options.maxlen = values.integer("maxlen");
  options.field_mode =
      values.text("field_mode") == "columns" ? FieldMode::columns : FieldMode::payload;
  options.max_in_flight = static_cast<std::size_t>(values.integer("max_in_flight"));
  options.max_message_bytes = static_cast<std::size_t>(values.bytes("max_message_bytes"));
  return options;
}

Result<SourceOptions> parse_source_options(const config::Values& values, std::string group,
                                           std::string consumer) {
  SourceOptions options;
  auto connection = parse_connection(values);
  if (!connection) return fail(connection.error());
  options.connection = std::move(*connection);
  options.stream_key = values.text("stream_key");
  options.group = values.has("group") ? values.text("group") : std::move(group);
  options.consumer = values.has("consumer") ? values.text("consumer") : std::move(consumer);
  options.start = values.text("start");
  options.count = static_cast<std::size_t>(values.integer("count"));
  options.claim_idle = values.duration("claim_idle");
  options.payload_field = values.text("payload_field");
  return options;
}

}  // namespace relay::redis
