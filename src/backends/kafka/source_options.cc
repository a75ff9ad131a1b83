#include "backends/kafka/client.h"
#include "backends/kafka/client_values.h"
#include "backends/kafka/options.h"
#include "connector/field_mapping.h"

namespace relay::kafka {

namespace {

using config::FieldType;
using config::fills;
using config::Option;

/// The source's options, and what becomes properties of librdkafka.
struct SourceValues : SourceOptions {
  ClientValues given;
  std::string auto_offset_reset;
};

constexpr Option<SourceValues> kOwnOptions[] = {
    {{.name = "topic",
      .type = FieldType::list,
      .meaning = "topics to read; one that begins with ^ is a regular expression for names",
      .required = true,
      .aliases = "topics"},
     fills<&SourceOptions::topics>},
    {{.name = "group_id",
      .meaning = "consumer group, whose committed offsets say where to go on; default "
                 "pgtrickle-<relay_group_id>-<pipeline>"},
     fills<&SourceOptions::group>},
    {{.name = "auto_offset_reset",
      .type = FieldType::choice,
      .default_text = "earliest",
      .meaning = "where to begin where the group has no offset, or one that is gone",
      .choices = "earliest,latest"},
     fills<&SourceValues::auto_offset_reset>},
};
constexpr auto kSourceOptions =
    config::joined<SourceValues>(config::within<&SourceValues::given, kClientOptions>, kOwnOptions);
constexpr auto kSourceFields = with_mapping_fields(kSourceOptions);

void add_consumer_properties(SourceValues& options) {
  auto& properties = options.client.properties;
  properties.emplace_back("group.id", options.group);
  properties.emplace_back("auto.offset.reset", options.auto_offset_reset);
  properties.emplace_back("enable.auto.offset.store", "false");
  properties.emplace_back("enable.auto.commit", "false");  // see commits.h
  // How long a member that was killed keeps its partitions: the least that brokers allow by
  // default.
  properties.emplace_back("session.timeout.ms", "6000");
  properties.emplace_back("heartbeat.interval.ms", "2000");
  // A request that a silent broker has holds the end of a consumer back for that long.
  properties.emplace_back("socket.timeout.ms", "5000");
  // The end of a partition is told: behind its last record may be marks of transactions.
  properties.emplace_back("enable.partition.eof", "true");
  // New topics and partitions are noticed within that time.
  properties.emplace_back("topic.metadata.refresh.interval.ms", "10000");
  properties.emplace_back("queued.max.messages.kbytes", std::to_string(kAheadBytes / 1024));
  properties.emplace_back("queued.min.messages", std::to_string(kAheadRecords));
  properties.emplace_back("fetch.message.max.bytes", std::to_string(kAheadBytes / 4));
  if (rdkafka_has_fetch_backoff()) properties.emplace_back("fetch.queue.backoff.ms", "10");
  properties.emplace_back("fetch.max.bytes", std::to_string(2 * kAheadBytes));
}

}  // namespace

config::FieldTable source_fields() {
  return kSourceFields;
}

Result<SourceOptions> parse_source_options(const config::Values& values,
                                           const std::string& default_group) {
  auto filled = config::filled<SourceValues>(kSourceOptions, values);
  if (!filled) return fail(filled.error());
  SourceValues& options = *filled;
  auto client = client_of(values, options.given);
  if (!client) return fail(client.error());
  options.client = std::move(*client);
  std::erase(options.topics, "");
  if (options.topics.empty()) {
    return fail(ErrorClass::misconfigured, "no_topic", "topic names no topic",
                "name one or more topics, or a regular expression that begins with ^");
  }
  if (!values.has("group_id")) options.group = default_group;
  add_consumer_properties(options);
  if (auto added = add_own_properties(options.given, options.client); !added) {
    return fail(added.error());
  }
  return SourceOptions(std::move(options));
}

}  // namespace relay::kafka
