#include "backends/nats/source_options.h"

#include <fmt/core.h>

#include <array>
#include <utility>
#include <vector>

#include "backends/nats/connection_fields.h"
#include "connector/field_mapping.h"

namespace relay::nats {

namespace {

using config::Field;
using config::FieldType;

constexpr std::array kOwnFields = {
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
    Field{.name = "create_stream",
          .type = FieldType::boolean,
          .default_text = "false",
          .meaning = "make the stream (file storage, one replica) where it is absent"},
    Field{.name = "stream_subjects",
          .type = FieldType::list,
          .meaning = "the subjects of a stream that create_stream makes; default: subject, else "
                     "<stream>.>"},
    Field{.name = "fetch",
          .type = FieldType::integer,
          .default_text = "500",
          .meaning = "messages that are asked for at once",
          .min = 1,
          .max = 100000},
};

constexpr auto kSourceFields = with_mapping_fields(config::joined(kConnectionFields, kOwnFields));

constexpr std::string_view kIllegalInNames = " .*>/\\\t\r\n";

std::vector<std::string> subjects_to_create(const config::Values& values) {
  if (values.has("stream_subjects")) return values.list("stream_subjects");
  if (values.has("subject")) return {values.text("subject")};
  return {values.text("stream") + ".>"};
}

}  // namespace

config::FieldTable source_fields() {
  return kSourceFields;
}

Result<SourceOptions> parse_source_options(const config::Values& values,
                                           std::string default_consumer) {
  SourceOptions options;
  if (auto read = read_connection(values, options.connection); !read) return fail(read.error());
  options.stream = values.text("stream");
  options.subject = values.text("subject");
  options.connection.create_stream = values.boolean("create_stream");
  options.connection.stream_subjects = subjects_to_create(values);
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
