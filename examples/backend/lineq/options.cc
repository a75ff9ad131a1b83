#include "lineq/options.h"

#include <array>
#include <utility>

#include "config/field_tables.h"
#include "connector/field_mapping.h"

namespace relay::lineq {

namespace {

using config::Field;
using config::FieldType;

constexpr std::array kConnectionFields = {
    Field{.name = "url", .meaning = "lineq://host:port of the server", .required = true},
    Field{.name = "token", .meaning = "what the server asks for", .secret = true},
    Field{.name = "timeout",
          .type = FieldType::duration,
          .default_text = "10s",
          .meaning = "for connecting; a server that is silent for that long with messages to "
                     "answer is away",
          .min = 0.1},
};
constexpr std::array kOwnSinkFields = {
    Field{.name = "queue", .meaning = "where messages go: a template, as subject_template"},
    Field{.name = "max_message_bytes",
          .type = FieldType::bytes,
          .default_text = "8MiB",
          .meaning = "a larger body is not offered to the server",
          .min = 1},
};
constexpr std::array kOwnSourceFields = {
    Field{.name = "queue", .meaning = "the queue that is read", .required = true},
};
constexpr auto kSinkFields = config::joined(kConnectionFields, kOwnSinkFields);
constexpr auto kSourceFields =
    with_mapping_fields(config::joined(kConnectionFields, kOwnSourceFields));

Result<ConnectionOptions> parse_connection(const config::Values& values) {
  static constexpr std::array kSchemes = {config::UrlForm::Scheme{"lineq", 7711}};
  const config::UrlForm form{kSchemes, "write it as lineq://host:7711"};
  auto servers = config::parse_endpoints(values.text("url"), form);
  if (!servers) return fail(servers.error());
  if (servers->size() != 1) return fail(config::bad_url("it names several servers", form));
  return ConnectionOptions{std::move(servers->front()), values.text("token"),
                           values.duration("timeout")};
}

}  // namespace

config::FieldTable sink_fields() {
  return kSinkFields;
}

config::FieldTable source_fields() {
  return kSourceFields;
}

Result<SinkOptions> parse_sink_options(const config::Values& values) {
  auto connection = parse_connection(values);
  if (!connection) return fail(connection.error());
  return SinkOptions{std::move(*connection),
                     static_cast<std::size_t>(values.bytes("max_message_bytes"))};
}

Result<SourceOptions> parse_source_options(const config::Values& values) {
  auto connection = parse_connection(values);
  if (!connection) return fail(connection.error());
  return SourceOptions{std::move(*connection), values.text("queue")};
}

}  // namespace relay::lineq
