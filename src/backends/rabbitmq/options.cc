#include "backends/rabbitmq/options.h"

#include <fmt/core.h>

#include <array>
#include <utility>

#include "config/field_tables.h"
#include "connector/field_mapping.h"
#include "core/text.h"

namespace relay::rabbitmq {

namespace {

using config::Field;
using config::FieldType;

constexpr std::array kServerFields = {
    Field{.name = "url",
          .default_text = "amqp://guest:guest@localhost:5672",
          .meaning = "broker: amqp://user:password@host:port/vhost, or amqps:// for TLS; several, "
                     "separated by commas, are tried in turn",
          .secret = true,
          .aliases = "urls"},
    Field{.name = "user", .meaning = "user name; goes before that of url"},
    Field{.name = "password", .meaning = "password of user", .secret = true},
    Field{.name = "vhost", .meaning = "virtual host; goes before that of url"},
};

constexpr std::array kTimeoutFields = {
    Field{.name = "connect_timeout",
          .type = FieldType::duration,
          .default_text = "5s",
          .meaning = "how long connecting to one broker may take",
          .min = 0.01},
    Field{.name = "operation_timeout",
          .type = FieldType::duration,
          .default_text = "5s",
          .meaning = "how long logging in, and declaring, may take",
          .min = 0.01},
};

constexpr std::array kOwnSinkFields = {
    Field{.name = "exchange",
          .meaning = "exchange to publish to; default: the broker's default exchange, where the "
                     "routing key is the name of a queue"},
    Field{.name = "exchange_type",
          .default_text = "topic",
          .meaning = "type of the exchange that declare makes: topic, direct, fanout, headers, or "
                     "what a plugin offers"},
    Field{.name = "routing_key",
          .meaning = "routing key, or template of it; default {stream_table}"},
    Field{.name = "declare",
          .type = FieldType::boolean,
          .default_text = "true",
          .meaning = "make the exchange (durable) where it is absent; else it must exist"},
    Field{.name = "mandatory",
          .type = FieldType::boolean,
          .default_text = "true",
          .meaning = "a message that no queue takes is an error; false: the broker drops it"},
    Field{.name = "persistent",
          .type = FieldType::boolean,
          .default_text = "true",
          .meaning = "durable queues keep messages over a restart of the broker"},
    Field{.name = "max_in_flight",
          .type = FieldType::integer,
          .default_text = "1000",
          .meaning = "messages published and not yet confirmed",
          .min = 1,
          .max = 1000000},
    Field{.name = "max_message_bytes",
          .type = FieldType::bytes,
          .default_text = "128MiB",
          .meaning = "a larger body is rejected; the broker's own max_message_size holds too",
          .min = 1,
          .max = 512.0 * 1024 * 1024},
    Field{.name = "ack_timeout",
          .type = FieldType::duration,
          .default_text = "10s",
          .meaning = "after that long without its confirm a message is published again, with the "
                     "same id",
          .min = 0.01},
    Field{.name = "key_order",
          .type = FieldType::choice,
          .default_text = "auto",
          .meaning = "one: at most one message of a key under way; pipelined: any number; auto: "
                     "any number, and one after the broker has refused or returned a message",
          .choices = "auto,one,pipelined"},
};

constexpr std::array kOwnSourceFields = {
    Field{.name = "queue", .meaning = "queue to consume", .required = true},
    Field{.name = "declare",
          .type = FieldType::boolean,
          .default_text = "true",
          .meaning = "make the queue (durable) where it is absent; else it must exist"},
    Field{.name = "queue_type",
          .type = FieldType::choice,
          .default_text = "quorum",
          .meaning = "type of the queue that declare makes",
          .choices = "quorum,classic,stream"},
    Field{.name = "prefetch",
          .type = FieldType::integer,
          .default_text = "1000",
          .meaning = "messages that the broker hands out before earlier ones are acknowledged",
          .min = 1,
          .max = 65535},
    Field{.name = "start",
          .default_text = "first",
          .meaning = "where a stream is begun that was not read before: first, next (what is "
                     "published from now on), an offset, or a time like 2026-01-31T12:00:00Z"},
    Field{.name = "bind",
          .type = FieldType::map,
          .meaning = "bindings to make: an object of exchanges, each with its routing keys, "
                     "separated by commas"},
};

constexpr auto kConnectionFields =
    config::joined(kServerFields, config::kTlsFields, kTimeoutFields);
constexpr auto kSinkFields = config::joined(kConnectionFields, kOwnSinkFields);
constexpr auto kSourceFields =
    with_mapping_fields(config::joined(kConnectionFields, kOwnSourceFields));
constexpr std::size_t kLongestName = 255;  // of a short string of AMQP

Result<ConnectionOptions> parse_connection(const config::Values& values) {
  ConnectionOptions options;
  auto endpoints = parse_endpoints(values.text("url"));
  if (!endpoints) return fail(endpoints.error());
  options.endpoints = std::move(*endpoints);
  options.connect_timeout = values.duration("connect_timeout");
  options.operation_timeout = values.duration("operation_timeout");
  if (auto read = config::read_tls(values, options); !read) return fail(read.error());
  const bool about_tls = !options.tls_ca.empty() || !options.tls_cert.empty();
  for (Endpoint& endpoint : options.endpoints) {
    if (about_tls && !endpoint.tls) {
      return fail(misconfigured(
          "tls_without_amqps",
          fmt::format("tls_ca or tls_cert is set, but the url of {} does not ask for TLS",
                      endpoint.address),
          "write the url with amqps://"));
    }
    if (values.has("user")) endpoint.user = values.text("user");
    if (values.has("password")) endpoint.password = values.text("password");
    if (values.has("vhost")) endpoint.vhost = values.text("vhost");
  }
  return options;
}

void add_bindings(const std::string& exchange, std::string_view keys, SourceOptions& options) {
  while (true) {
    const auto comma = keys.find(',');
    options.bindings.emplace_back(exchange, trimmed(keys.substr(0, comma), " "));
    if (comma == std::string_view::npos) return;
    keys.remove_prefix(comma + 1);
  }
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
  options.connection.ack_timeout = values.duration("ack_timeout");
  options.exchange = values.text("exchange");
  options.exchange_type = values.text("exchange_type");
  options.declare = values.boolean("declare");
  options.mandatory = values.boolean("mandatory");
  options.persistent = values.boolean("persistent");
  options.max_in_flight = static_cast<std::size_t>(values.integer("max_in_flight"));
  options.max_message_bytes = static_cast<std::size_t>(values.bytes("max_message_bytes"));
  options.key_order = read_key_order(values);
  if (options.exchange.size() > kLongestName) {
    return fail(misconfigured("bad_exchange", "exchange: a name has at most 255 bytes",
                              "correct the exchange's name"));
  }
  return options;
}

Result<SourceOptions> parse_source_options(const config::Values& values) {
  SourceOptions options;
  auto connection = parse_connection(values);
  if (!connection) return fail(connection.error());
  options.connection = std::move(*connection);
  options.queue = values.text("queue");
  options.declare = values.boolean("declare");
  options.queue_type = values.text("queue_type");
  options.prefetch = static_cast<std::uint16_t>(values.integer("prefetch"));
  const auto start = parse_stream_start(values.text("start"));
  if (!start) return fail(start.error());
  options.start = *start;
  for (const auto& [exchange, keys] : values.map("bind")) add_bindings(exchange, keys, options);
  if (options.queue.empty() || options.queue.size() > kLongestName) {
    return fail(
        misconfigured("bad_queue", "queue: a name has 1 to 255 bytes", "correct the queue's name"));
  }
  return options;
}

}  // namespace relay::rabbitmq
