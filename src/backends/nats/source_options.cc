#include "backends/nats/source_options.h"

#include <fmt/core.h>

#include <utility>
#include <vector>

#include "backends/nats/connection_options.h"
#include "connector/field_mapping.h"

namespace relay::nats {

namespace {

using config::FieldType;
using config::fills;
using config::Option;

constexpr Option<SourceOptions> kOwnOptions[] = {
    {{.name = "stream", .meaning = "the JetStream stream that is read", .required = true},
     fills<&SourceOptions::stream>},
    {{.name = "subject",
      .meaning = "read only what was published to it; wildcards may be used",
      .aliases = "filter_subject"},
     fills<&SourceOptions::subject>},
    {{.name = "consumer",
      .meaning = "durable pull consumer, made if absent; default "
                 "pgtrickle-<relay_group_id>-<pipeline>",
      .aliases = "durable"},
     fills<&SourceOptions::consumer>},
    {{.name = "deliver_policy",
      .type = FieldType::choice,
      .default_text = "all",
      .meaning = "where a consumer that is made begins",
      .choices = "all,new,last,last_per_subject"},
     fills<&SourceOptions::deliver_policy>},
    {{.name = "ack_wait",
      .type = FieldType::duration,
      .default_text = "30s",
      .meaning = "of a consumer that is made: a message that a killed relay had in work comes "
                 "again after that long",
      .min = 0.1},
     fills<&SourceOptions::ack_wait>},
    {{.name = "max_deliver",
      .type = FieldType::integer,
      .default_text = "-1",
      .meaning = "of a consumer that is made: how often a message is delivered at most; -1: "
                 "until it is settled",
      .min = -1},
     fills<&SourceOptions::max_deliver>},
    {{.name = "create_stream",
      .type = FieldType::boolean,
      .default_text = "false",
      .meaning = "make the stream (file storage) where it is absent"},
     fills<&SourceOptions::connection, &Options::create_stream>},
    {{.name = "fetch",
      .type = FieldType::integer,
      .default_text = "500",
      .meaning = "messages that are asked for at once",
      .min = 1,
      .max = 100000},
     fills<&SourceOptions::fetch>},
};

constexpr auto kSourceOptions = config::joined<SourceOptions>(
    config::within<&SourceOptions::connection, kConnectionOptions>, kOwnOptions);
constexpr auto kSourceFields = with_mapping_fields(kSourceOptions);

constexpr std::string_view kIllegalInNames = " .*>/\\\t\r\n";

}  // namespace

config::FieldTable source_fields() {
  return kSourceFields;
}

Result<SourceOptions> parse_source_options(const config::Values& values,
                                           std::string default_consumer) {
  auto filled = config::filled<SourceOptions>(kSourceOptions, values);
  if (!filled) return filled;
  SourceOptions& options = *filled;
  if (auto done = complete_connection(options.connection); !done) return fail(done.error());
  if (!values.has("stream_subjects")) {
    options.connection.stream_subjects = {values.has("subject") ? options.subject
                                                                : options.stream + ".>"};
  }
  if (!values.has("consumer")) {
    options.consumer = std::move(default_consumer);
    for (char& c : options.consumer) {
      if (kIllegalInNames.find(c) != std::string_view::npos) c = '_';
    }
  }
  for (const auto& [what, name] :
       {std::pair<std::string_view, const std::string&>("stream", options.stream),
        {"consumer", options.consumer}}) {
    if (name.empty() || name.find_first_of(kIllegalInNames) != std::string::npos) {
      return fail(ErrorClass::misconfigured, "bad_name",
                  fmt::format("{}: '{}' cannot be the name of one", what, name),
                  "names hold no spaces, dots, wildcards or slashes");
    }
  }
  return filled;
}

}  // namespace relay::nats
