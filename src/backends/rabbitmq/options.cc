#include "backends/rabbitmq/options.h"

#include <fmt/core.h>

#include <map>

#include "config/option_table.h"
#include "connector/field_mapping.h"
#include "core/text.h"

namespace relay::rabbitmq {

namespace {

using config::FieldType;
using config::fills;
using config::fills_choice;
using config::fills_nothing;
using config::fills_with;
using config::Option;

constexpr Option<ConnectionOptions> kServerOptions[] = {
    {{.name = "url",
      .default_text = "amqp://guest:guest@localhost:5672",
      .meaning = "broker: amqp://user:password@host:port/vhost, or amqps:// for TLS; several, "
                 "separated by commas, are tried in turn",
      .secret = true,
      .aliases = "urls"},
     fills_with<&parse_endpoints, &ConnectionOptions::endpoints>},
    {{.name = "user", .meaning = "user name; goes before that of url"},
     fills<&ConnectionOptions::login, &Login::user>},
    {{.name = "password", .meaning = "password of user", .secret = true},
     fills<&ConnectionOptions::login, &Login::password>},
    {{.name = "vhost", .meaning = "virtual host; goes before that of url"},
     fills<&ConnectionOptions::login, &Login::vhost>},
};

Result<std::chrono::seconds> whole_seconds(const std::chrono::milliseconds& given,
                                           std::string_view name) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(given);
  if (seconds == given) return seconds;
  return fail(misconfigured(
      "bad_heartbeat",
      fmt::format("{}: AMQP knows whole seconds only, not {} ms", name, given.count()),
      "write whole seconds, or 0 for no heartbeats"));
}

constexpr Option<ConnectionOptions> kTimeoutOptions[] = {
    {{.name = "connect_timeout",
      .type = FieldType::duration,
      .default_text = "5s",
      .meaning = "how long connecting to one broker may take",
      .min = 0.01},
     fills<&ConnectionOptions::connect_timeout>},
    {{.name = "operation_timeout",
      .type = FieldType::duration,
      .default_text = "5s",
      .meaning = "how long logging in, and declaring, may take",
      .min = 0.01},
     fills<&ConnectionOptions::operation_timeout>},
    {{.name = "heartbeat",
      .type = FieldType::duration,
      .default_text = "30s",
      .meaning = "interval of heartbeats, in whole seconds; a broker that wants a shorter one gets "
                 "it; 0: none. A broker that is silent for two intervals is given up",
      .min = 0,
      .max = 65535},
     fills_with<&whole_seconds, &ConnectionOptions::heartbeat>},
};

constexpr Option<SinkOptions> kOwnSinkOptions[] = {
    {{.name = "exchange",
      .meaning = "exchange to publish to; default: the broker's default exchange, where the "
                 "routing key is the name of a queue"},
     fills<&SinkOptions::exchange>},
    {{.name = "exchange_type",
      .default_text = "topic",
      .meaning = "type of the exchange that declare makes: topic, direct, fanout, headers, or "
                 "what a plugin offers"},
     fills<&SinkOptions::exchange_type>},
    // The registry reads routing_key: it is the sink's name of subject_template.
    {{.name = "routing_key", .meaning = "routing key, or template of it; default {stream_table}"},
     fills_nothing},
    {{.name = "declare",
      .type = FieldType::boolean,
      .default_text = "true",
      .meaning = "make the exchange (durable) where it is absent; else it must exist"},
     fills<&SinkOptions::declare>},
    {{.name = "arguments",
      .type = FieldType::map,
      .meaning = "arguments of the exchange that declare makes, such as alternate-exchange; "
                 "numbers and booleans stay what they are"},
     fills_with<&parse_arguments, &SinkOptions::arguments>},
    {{.name = "mandatory",
      .type = FieldType::boolean,
      .default_text = "true",
      .meaning = "a message that no queue takes is an error; false: the broker drops it"},
     fills<&SinkOptions::mandatory>},
    {{.name = "persistent",
      .type = FieldType::boolean,
      .default_text = "true",
      .meaning = "durable queues keep messages over a restart of the broker"},
     fills<&SinkOptions::persistent>},
    {{.name = "max_in_flight",
      .type = FieldType::integer,
      .default_text = "1000",
      .meaning = "messages published and not yet confirmed",
      .min = 1,
      .max = 1000000},
     fills<&SinkOptions::max_in_flight>},
    {{.name = "max_message_bytes",
      .type = FieldType::bytes,
      .default_text = "128MiB",
      .meaning = "a larger body is rejected; the broker's own max_message_size holds too",
      .min = 1,
      .max = 512.0 * 1024 * 1024},
     fills<&SinkOptions::max_message_bytes>},
    {{.name = "ack_timeout",
      .type = FieldType::duration,
      .default_text = "10s",
      .meaning = "after that long without its confirm a message is published again, with the "
                 "same id",
      .min = 0.01},
     fills<&SinkOptions::connection, &ConnectionOptions::ack_timeout>},
    {{.name = "key_order",
      .type = FieldType::choice,
      .default_text = "auto",
      .meaning = "one: at most one message of a key under way; pipelined: any number; auto: "
                 "any number, and one after the broker has refused or returned a message",
      .choices = "auto,one,pipelined"},
     fills_choice<kKeyOrders, &SinkOptions::key_order>},
};

Bindings bindings_of(const std::map<std::string, std::string>& bind) {
  Bindings bindings;
  for (const auto& [exchange, text] : bind) {
    std::string_view keys = text;
    while (true) {
      const auto comma = keys.find(',');
      bindings.emplace_back(exchange, trimmed(keys.substr(0, comma), " "));
      if (comma == std::string_view::npos) break;
      keys.remove_prefix(comma + 1);
    }
  }
  return bindings;
}

constexpr Option<SourceOptions> kOwnSourceOptions[] = {
    {{.name = "queue", .meaning = "queue to consume", .required = true},
     fills<&SourceOptions::queue>},
    {{.name = "declare",
      .type = FieldType::boolean,
      .default_text = "true",
      .meaning = "make the queue (durable) where it is absent; else it must exist"},
     fills<&SourceOptions::declare>},
    {{.name = "queue_type",
      .type = FieldType::choice,
      .default_text = "quorum",
      .meaning = "type of the queue that declare makes",
      .choices = "quorum,classic,stream"},
     fills<&SourceOptions::queue_type>},
    {{.name = "delivery_limit",
      .type = FieldType::integer,
      .meaning =
          "limit of deliveries of the quorum queue that declare makes; -1, the default: none",
      .min = -1,
      .max = 1000000},
     fills<&SourceOptions::delivery_limit>},
    {{.name = "dead_letter_exchange",
      .meaning =
          "exchange for what the queue that declare makes drops: beyond its limits, or expired"},
     fills<&SourceOptions::dead_letter_exchange>},
    {{.name = "dead_letter_routing_key",
      .meaning = "routing key of messages in dead_letter_exchange; default: their own"},
     fills<&SourceOptions::dead_letter_routing_key>},
    {{.name = "arguments",
      .type = FieldType::map,
      .meaning = "further arguments of the queue that declare makes, such as x-max-length; numbers "
                 "and booleans stay what they are"},
     fills_with<&parse_arguments, &SourceOptions::arguments>},
    {{.name = "prefetch",
      .type = FieldType::integer,
      .default_text = "1000",
      .meaning = "messages that the broker hands out before earlier ones are acknowledged",
      .min = 1,
      .max = 65535},
     fills<&SourceOptions::prefetch>},
    {{.name = "start",
      .default_text = "first",
      .meaning = "where a stream is begun that was not read before: first, next (what is "
                 "published from now on), an offset, or a time like 2026-01-31T12:00:00Z"},
     fills_with<&parse_stream_start, &SourceOptions::start>},
    {{.name = "bind",
      .type = FieldType::map,
      .meaning = "bindings to make: an object of exchanges, each with its routing keys, "
                 "separated by commas"},
     fills_with<&bindings_of, &SourceOptions::bindings>},
};

constexpr auto kConnectionOptions = config::joined<ConnectionOptions>(
    kServerOptions, config::inherited<ConnectionOptions, config::kTlsOptions>, kTimeoutOptions);
constexpr auto kSinkOptions = config::joined<SinkOptions>(
    config::within<&SinkOptions::connection, kConnectionOptions>, kOwnSinkOptions);
constexpr auto kSourceOptions = config::joined<SourceOptions>(
    config::within<&SourceOptions::connection, kConnectionOptions>, kOwnSourceOptions);
constexpr auto kSinkFields = config::fields_of(kSinkOptions);
constexpr auto kSourceFields = with_mapping_fields(kSourceOptions);
constexpr std::size_t kLongestName = 255;  // of a short string of AMQP

/// Puts the login into the endpoints, and checks what belongs together.
Result<void> complete(ConnectionOptions& options) {
  if (auto checked = config::check_tls(options); !checked) return checked;
  const bool about_tls = !options.tls_ca.empty() || !options.tls_cert.empty();
  for (Endpoint& endpoint : options.endpoints) {
    if (about_tls && !endpoint.tls) {
      return fail(misconfigured(
          "tls_without_amqps",
          fmt::format("tls_ca or tls_cert is set, but the url of {} does not ask for TLS",
                      endpoint.address),
          "write the url with amqps://"));
    }
    if (options.login.user) endpoint.user = *options.login.user;
    if (options.login.password) endpoint.password = *options.login.password;
    if (options.login.vhost) endpoint.vhost = *options.login.vhost;
  }
  return {};
}

/// Arguments that have an option of their own.
constexpr std::pair<std::string_view, std::string_view> kNamedArguments[] = {
    {"x-queue-type", "queue_type"},
    {"x-delivery-limit", "delivery_limit"},
    {"x-dead-letter-exchange", "dead_letter_exchange"},
    {"x-dead-letter-routing-key", "dead_letter_routing_key"},
};

Result<void> check_arguments(const SourceOptions& options) {
  const auto refused = [](std::string message, std::string remedy) {
    return fail(misconfigured("bad_argument", std::move(message), std::move(remedy)));
  };
  for (const auto& [argument, option] : kNamedArguments) {
    if (options.arguments.contains(std::string(argument))) {
      return refused(fmt::format("arguments: {} is what the option {} says", argument, option),
                     fmt::format("set {} instead", option));
    }
  }
  if (options.delivery_limit && options.queue_type != "quorum") {
    return refused("delivery_limit: only quorum queues have one",
                   "leave it out, or set queue_type to quorum");
  }
  const bool dead_letters =
      !options.dead_letter_exchange.empty() || !options.dead_letter_routing_key.empty();
  if (dead_letters && options.queue_type == "stream") {
    return refused("dead_letter_exchange: streams have none",
                   "leave it out, or set another queue_type");
  }
  if (!options.dead_letter_routing_key.empty() && options.dead_letter_exchange.empty()) {
    return refused("dead_letter_routing_key is set, and dead_letter_exchange is not",
                   "set dead_letter_exchange, or leave both out");
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
  if (auto done = complete(options->connection); !done) return fail(done.error());
  if (options->exchange.size() > kLongestName) {
    return fail(misconfigured("bad_exchange", "exchange: a name has at most 255 bytes",
                              "correct the exchange's name"));
  }
  return options;
}

Result<SourceOptions> parse_source_options(const config::Values& values) {
  auto options = config::filled<SourceOptions>(kSourceOptions, values);
  if (!options) return options;
  if (auto done = complete(options->connection); !done) return fail(done.error());
  if (options->queue.empty() || options->queue.size() > kLongestName) {
    return fail(
        misconfigured("bad_queue", "queue: a name has 1 to 255 bytes", "correct the queue's name"));
  }
  if (auto checked = check_arguments(*options); !checked) return fail(checked.error());
  return options;
}

}  // namespace relay::rabbitmq
