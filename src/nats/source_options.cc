#include "nats/source_options.h"

#include <array>
#include <utility>

#include "config/field_tables.h"
#include "pipeline/field_mapping.h"

namespace relay::nats {

namespace {

using config::Field;
using config::FieldType;

constexpr std::array kServerFields = {
    Field{.name = "url",
          .default_text = "nats://localhost:4222",
          .meaning = "server: nats://host:port, or tls://host:port; several, separated by commas, "
                     "are tried in turn",
          .secret = true,
          .aliases = "urls,servers"},
    Field{.name = "stream", .meaning = "the JetStream stream that is read", .required = true},
    Field{.name = "subject",
          .meaning = "read only what was published to it; wildcards may be used",
          .aliases = "filter_subject"},
    Field{.name = "consumer",
          .meaning = "durable pull consumer, made if absent; default "
                     "pgtrickle-<relay_group_id>-<pipeline>",
          .aliases = "durable"},
    Field{.name = "deliver_policy",
          .type = FieldType::choice,
          .default_text = "all",
          .meaning = "where a consumer that is made begins",
          .choices = "all,new,last,last_per_subject"},
    Field{.name = "ack_wait",
          .type = FieldType::duration,
          .default_text = "30s",
          .meaning = "of a consumer that is made: a message that a killed relay had in work comes "
                     "again after that long",
          .min = 0.1},
    Field{.name = "max_deliver",
          .type = FieldType::integer,
          .default_text = "-1",
          .meaning = "of a consumer that is made: how often a message is delivered at most; -1: "
                     "until it is settled",
          .min = -1},
    Field{.name = "fetch",
          .type = FieldType::integer,
          .default_text = "500",
          .meaning = "messages that are asked for at once",
          .min = 1,
          .max = 100000},
    Field{.name = "credentials_file", .meaning = "file with the user's JWT and NKey seed (.creds)"},
    Field{.name = "user", .meaning = "user name"},
    Field{.name = "password", .meaning = "password of user", .secret = true},
    Field{.name = "token", .meaning = "authentication token", .secret = true},
    Field{.name = "tls",
          .type = FieldType::boolean,
          .default_text = "false",
          .meaning = "use TLS; tls:// and tls_ca, tls_cert imply it"},
};

constexpr std::array kTimeoutFields = {
    Field{.name = "connect_timeout",
          .type = FieldType::duration,
          .default_text = "5s",
          .meaning = "how long connecting to one server may take",
          .min = 0.01},
    Field{.name = "operation_timeout",
          .type = FieldType::duration,
          .default_text = "5s",
          .meaning = "how long asking for a stream, or making a consumer, may take",
          .min = 0.01},
};
constexpr auto kSourceFields =
    with_mapping_fields(config::joined(kServerFields, config::kTlsFields, kTimeoutFields));

constexpr std::string_view kIllegalInNames = " .*>/\\\t\r\n";

}  // namespace

config::FieldTable source_fields() {
  return kSourceFields;
}

Result<SourceOptions> parse_source_options(const config::Values& values,
                                           std::string default_consumer) {
  SourceOptions options;
  auto endpoints = parse_endpoints(values.text("url"));
  if (!endpoints) return fail(endpoints.error());
  options.connection.endpoints = std::move(*endpoints);
  if (auto read = read_security(values, options.connection); !read) return fail(read.error());
  options.connection.connect_timeout = values.duration("connect_timeout");
  options.connection.operation_timeout = values.duration("operation_timeout");
  options.stream = values.text("stream");
  options.subject = values.text("subject");
  for (char& c : default_consumer) {
    if (kIllegalInNames.find(c) != std::string_view::npos) c = '_';
  }
  options.consumer = values.has("consumer") ? values.text("consumer") : default_consumer;
  options.deliver_policy = values.text("deliver_policy");
  options.ack_wait = values.duration("ack_wait");
  options.max_deliver = values.integer("max_deliver");
  options.fetch = static_cast<int>(values.integer("fetch"));
  for (const auto& [what, name] :
       {std::pair<std::string_view, const std::string&>("stream", options.stream),
        {"consumer", options.consumer}}) {
    if (name.empty() || name.find_first_of(kIllegalInNames) != std::string::npos) {
      return fail(ErrorClass::misconfigured, "bad_name",
                  fmt::format("{}: '{}' cannot be the name of one", what, name),
                  "names hold no spaces, dots, wildcards or slashes");
    }
  }
  return options;
}

}  // namespace relay::nats
