#include "lineq/options.h"

#include <array>
#include <utility>

#include "config/option_table.h"
#include "connector/field_mapping.h"

namespace relay::lineq {

namespace {

using config::FieldType;
using config::fills;
using config::fills_nothing;
using config::fills_with;
using config::Option;

Result<config::Endpoint> server_of(std::string_view url) {
  static constexpr std::array kSchemes = {config::UrlForm::Scheme{"lineq", 7711}};
  const config::UrlForm form{kSchemes, "write it as lineq://host:7711"};
  auto servers = config::parse_endpoints(url, form);
  if (!servers) return fail(servers.error());
  if (servers->size() != 1) return fail(config::bad_url("it names several servers", form));
  return std::move(servers->front());
}

constexpr Option<ConnectionOptions> kConnectionOptions[] = {
    {{.name = "url", .meaning = "lineq://host:port of the server", .required = true},
     fills_with<&server_of, &ConnectionOptions::server>},
    {{.name = "token", .meaning = "what the server asks for", .secret = true},
     fills<&ConnectionOptions::token>},
    {{.name = "timeout",
      .type = FieldType::duration,
      .default_text = "10s",
      .meaning = "for connecting; a server that is silent for that long with messages to "
                 "answer is away",
      .min = 0.1},
     fills<&ConnectionOptions::timeout>},
};
constexpr Option<SinkOptions> kOwnSinkOptions[] = {
    // The registry reads queue: it is the sink's name of subject_template.
    {{.name = "queue", .meaning = "where messages go: a template, as subject_template"},
     fills_nothing},
    {{.name = "max_message_bytes",
      .type = FieldType::bytes,
      .default_text = "8MiB",
      .meaning = "a larger body is not offered to the server",
      .min = 1},
     fills<&SinkOptions::max_message_bytes>},
};
constexpr Option<SourceOptions> kOwnSourceOptions[] = {
    {{.name = "queue", .meaning = "the queue that is read", .required = true},
     fills<&SourceOptions::queue>},
};
constexpr auto kSinkOptions = config::joined<SinkOptions>(
    config::within<&SinkOptions::connection, kConnectionOptions>, kOwnSinkOptions);
constexpr auto kSourceOptions = config::joined<SourceOptions>(
    config::within<&SourceOptions::connection, kConnectionOptions>, kOwnSourceOptions);
constexpr auto kSinkFields = config::fields_of(kSinkOptions);
constexpr auto kSourceFields = with_mapping_fields(kSourceOptions);

}  // namespace

config::FieldTable sink_fields() {
  return kSinkFields;
}

config::FieldTable source_fields() {
  return kSourceFields;
}

Result<SinkOptions> parse_sink_options(const config::Values& values) {
  return config::filled<SinkOptions>(kSinkOptions, values);
}

Result<SourceOptions> parse_source_options(const config::Values& values) {
  return config::filled<SourceOptions>(kSourceOptions, values);
}

}  // namespace relay::lineq
