#include <fmt/core.h>

#include "backends/kafka/client_values.h"
#include "backends/kafka/options.h"

namespace relay::kafka {

namespace {

using config::FieldType;
using config::fills;
using config::fills_nothing;
using config::fills_with;
using config::Option;

/// The sink's options, and what becomes properties of librdkafka.
struct SinkValues : SinkOptions {
  ClientValues given;
  std::string compression;
  double linger_ms = 0;
  std::optional<int> topic_partitions;
  std::optional<int> topic_replication_factor;
};

std::string acks_of(std::string_view text) {
  return std::string(text == "-1" ? "all" : text);
}

bool is_time_of_change(std::string_view text) {
  return text == "change";
}

constexpr Option<SinkValues> kOwnOptions[] = {
    // The registry reads topic: it is the sink's name of subject_template.
    {{.name = "topic",
      .meaning = "topic, or template of it, for example orders.{op}; default {stream_table}",
      .aliases = "topic_template"},
     fills_nothing},
    {{.name = "acks",
      .type = FieldType::choice,
      .default_text = "all",
      .meaning = "who must have a message before it counts as delivered: all in-sync replicas; "
                 "1: the leader alone; 0: no broker",
      .choices = "all,-1,1,0"},
     fills_with<&acks_of, &SinkOptions::acks>},
    {{.name = "compression",
      .type = FieldType::choice,
      .default_text = "lz4",
      .meaning = "how batches are compressed",
      .choices = "none,gzip,snappy,lz4,zstd"},
     fills<&SinkValues::compression>},
    {{.name = "linger_ms",
      .type = FieldType::number,
      .default_text = "5",
      .meaning = "how long, in milliseconds, an incomplete batch may wait for more; what the "
                 "relay has no more messages for is sent at once",
      .min = 0,
      .max = 900000},
     fills<&SinkValues::linger_ms>},
    {{.name = "max_in_flight",
      .type = FieldType::integer,
      .default_text = "20000",
      .meaning = "messages sent and not yet acknowledged; never more than 16 MiB of them",
      .min = 1,
      .max = 1000000},
     fills<&SinkOptions::max_in_flight>},
    {{.name = "max_message_bytes",
      .type = FieldType::bytes,
      .default_text = "64MiB",
      .meaning = "a larger message is not even offered to the broker, whose own limit is the "
                 "topic's max.message.bytes",
      .min = 1000,
      .max = 1000000000},
     fills<&SinkOptions::max_message_bytes>},
    {{.name = "delivery_timeout",
      .type = FieldType::duration,
      .default_text = "10s",
      .meaning = "after that long without any acknowledgement the messages under way are sent "
                 "again by a new producer, with the same ids",
      .min = 0.1},
     fills<&SinkOptions::delivery_timeout>},
    {{.name = "timestamp",
      .type = FieldType::choice,
      .default_text = "change",
      .meaning = "what a record's timestamp is: when the change was made, or when it is sent",
      .choices = "change,send"},
     fills_with<&is_time_of_change, &SinkOptions::time_of_change>},
    {{.name = "create_topics",
      .type = FieldType::boolean,
      .default_text = "false",
      .meaning = "make topics that are absent; a topic that exists is left as it is"},
     fills<&SinkOptions::create_topics>},
    {{.name = "topic_partitions",
      .type = FieldType::integer,
      .meaning = "partitions of a topic that is made; default: as the brokers choose",
      .min = 1,
      .max = 100000},
     fills<&SinkValues::topic_partitions>},
    {{.name = "topic_replication_factor",
      .type = FieldType::integer,
      .meaning = "replicas of a topic that is made; default: as the brokers choose",
      .min = 1,
      .max = 1000},
     fills<&SinkValues::topic_replication_factor>},
    {{.name = "topic_config",
      .type = FieldType::map,
      .meaning = "configuration of a topic that is made, for example "
                 "{\"cleanup.policy\": \"compact\"}"},
     fills<&SinkOptions::new_topics, &NewTopics::config>},
    // Refused, wherever it is given.
    {{.name = "transactional_id", .meaning = "not offered: the relay sends without transactions"},
     fills_nothing},
};
constexpr auto kSinkOptions =
    config::joined<SinkValues>(config::within<&SinkValues::given, kClientOptions>, kOwnOptions);
constexpr auto kSinkFields = config::fields_of(kSinkOptions);

void add_producer_properties(SinkValues& options) {
  auto& properties = options.client.properties;
  constexpr std::size_t kQueueBytes = 32u << 20;
  const auto add = [&](std::string_view name, std::string value) {
    properties.emplace_back(name, std::move(value));
  };
  add("acks", options.acks);
  add("compression.type", options.compression);
  add("linger.ms", fmt::format("{}", options.linger_ms));
  add("queue.buffering.max.messages", std::to_string(options.max_in_flight + 1));
  add("queue.buffering.max.kbytes",
      std::to_string((kQueueBytes + 2 * options.max_message_bytes) / 1024));
  add("message.max.bytes", std::to_string(options.max_message_bytes));
  // The relay keeps its own time: one message that expired alone would let later ones pass it.
  add("message.timeout.ms", "0");
  add("socket.timeout.ms",
      std::to_string(std::max<std::int64_t>(1000, options.delivery_timeout.count())));
  add("topic.metadata.propagation.max.ms", "5000");
  // Java's own choice, so that both put a key into the same partition.
  add("partitioner", "murmur2_random");
  if (options.acks == "all") add("enable.idempotence", "true");
}

}  // namespace

config::FieldTable sink_fields() {
  return kSinkFields;
}

Result<SinkOptions> parse_sink_options(const config::Values& values) {
  auto filled = config::filled<SinkValues>(kSinkOptions, values);
  if (!filled) return fail(filled.error());
  SinkValues& options = *filled;
  auto client = client_of(values, options.given);
  if (!client) return fail(client.error());
  options.client = std::move(*client);
  if (values.has("transactional_id")) {
    return fail(misconfigured("no_transactions",
                              "transactional_id: the relay sends to Kafka without transactions",
                              "leave it out; consumers compare the header pgtrickle-id"));
  }
  for (const char* option : {"topic_partitions", "topic_replication_factor", "topic_config"}) {
    if (options.create_topics || !values.has(option)) continue;
    return fail(misconfigured("contradiction",
                              fmt::format("{} is set, but create_topics is not", option),
                              "set create_topics, or leave it out"));
  }
  options.new_topics.partitions = options.topic_partitions.value_or(-1);
  options.new_topics.replication_factor = options.topic_replication_factor.value_or(-1);
  add_producer_properties(options);
  if (auto added = add_own_properties(options.given, options.client); !added) {
    return fail(added.error());
  }
  const auto idempotence = property(options.client, "enable.idempotence");
  options.idempotent = idempotence == "true";
  return SinkOptions(std::move(options));
}

}  // namespace relay::kafka
