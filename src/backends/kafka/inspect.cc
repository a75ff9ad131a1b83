// What `check` sees of sinks and sources: no topic is made, no group joined.

#include <fmt/core.h>
#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "backends/kafka/client.h"
#include "backends/kafka/errors.h"
#include "backends/kafka/sink.h"
#include "backends/kafka/source.h"
#include "backends/kafka/topic.h"
#include "core/text.h"

namespace relay::kafka {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kConfigTime{3000};

template <auto destroy>
struct Free {
  template <class T>
  void operator()(T* object) const {
    destroy(object);
  }
};
using Metadata = std::unique_ptr<const struct rd_kafka_metadata, Free<&rd_kafka_metadata_destroy>>;
using Topic = std::unique_ptr<rd_kafka_topic_t, Free<&rd_kafka_topic_destroy>>;
using Queue = std::unique_ptr<rd_kafka_queue_t, Free<&rd_kafka_queue_destroy>>;
using Event = std::unique_ptr<rd_kafka_event_t, Free<&rd_kafka_event_destroy>>;

void end(rd_kafka_t* client) {
  stop_tokens(client);
  rd_kafka_destroy(client);
}

/// A client that asks. It is a consumer without a group, since a producer that asks for a topic
/// makes it where the cluster allows that.
class Inspector {
 public:
  explicit Inspector(const ClientOptions& options) : options_(options) {}

  Result<void> connect(std::stop_token stop) {
    auto configuration = Configuration::make(options_, events_);
    if (!configuration) return fail(configuration.error());
    if (auto set = configuration->set("allow.auto.create.topics", "false"); !set) return set;
    std::array<char, 512> text{};
    client_.reset(rd_kafka_new(RD_KAFKA_CONSUMER, configuration->get(), text.data(), text.size()));
    if (!client_) return fail(property_error("the options", text.data()));
    configuration->release();
    return wait_for_cluster(client_.get(), options_, events_,
                            Deadline::after(options_.connect_timeout), std::move(stop));
  }

  /// What the cluster says of a topic; 0: it is there.
  Result<int> ask(const std::string& name) {
    const Topic topic(rd_kafka_topic_new(client_.get(), name.c_str(), nullptr));
    if (!topic) return static_cast<int>(rd_kafka_last_error());
    const struct rd_kafka_metadata* raw = nullptr;
    const auto code = rd_kafka_metadata(client_.get(), 0, topic.get(), &raw,
                                        static_cast<int>(options_.connect_timeout.count()));
    const Metadata metadata(raw);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
      return fail(cluster_error(code, {}, options_.brokers));
    }
    for (int i = 0; i < metadata->broker_cnt; ++i) broker_ = metadata->brokers[i].id;
    for (int i = 0; i < metadata->topic_cnt; ++i) {
      if (name == metadata->topics[i].topic) return static_cast<int>(metadata->topics[i].err);
    }
    return static_cast<int>(RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
  }

  /// Whether a broker makes topics that are written to. False also where we may not know it.
  bool makes_topics() {
    rd_kafka_ConfigResource_t* asked =
        rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_BROKER, fmt::format("{}", broker_).c_str());
    const Queue answers(rd_kafka_queue_new(client_.get()));
    rd_kafka_DescribeConfigs(client_.get(), &asked, 1, nullptr, answers.get());
    rd_kafka_ConfigResource_destroy(asked);
    const Event event(rd_kafka_queue_poll(answers.get(), static_cast<int>(kConfigTime.count())));
    if (!event || rd_kafka_event_error(event.get()) != RD_KAFKA_RESP_ERR_NO_ERROR) return false;
    std::size_t count = 0;
    const auto** resources = rd_kafka_DescribeConfigs_result_resources(
        rd_kafka_event_DescribeConfigs_result(event.get()), &count);
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t entries = 0;
      const auto** configs = rd_kafka_ConfigResource_configs(resources[i], &entries);
      for (std::size_t k = 0; k < entries; ++k) {
        const char* value = rd_kafka_ConfigEntry_value(configs[k]);
        if (rd_kafka_ConfigEntry_name(configs[k]) ==
            std::string_view("auto.create.topics.enable")) {
          return value != nullptr && value == std::string_view("true");
        }
      }
    }
    return false;
  }

 private:
  const ClientOptions& options_;
  ClientEvents events_;
  std::unique_ptr<rd_kafka_t, Free<&end>> client_;  // behind what it writes to
  std::int32_t broker_ = 0;
};

Error topic_error(int code, const std::string& topic, const ClientOptions& options) {
  Error error = cluster_error(code, {}, options.brokers);
  error.message = fmt::format("topic '{}': {}", topic, error.message);
  if (error.code == "unknown_topic") {
    error.remedy =
        fmt::format("kafka-topics.sh --bootstrap-server {} --create --topic {}; or correct topic",
                    shell_word(options.brokers), shell_word(topic));
  }
  return error;
}

/// `written`: the sink that will write to it; null: none.
void inspect_topic(Inspector& inspector, const std::string& topic, const SinkOptions* written,
                   const ClientOptions& options, Inspection& found) {
  const auto code = inspector.ask(topic);
  if (!code) {
    found.problems.push_back(code.error());
  } else if (*code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART && written != nullptr &&
             written->create_topics) {
    found.notes.push_back(
        fmt::format("the topic '{}' is made by the relay with the first message", topic));
  } else if (*code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART && written != nullptr &&
             inspector.makes_topics()) {
    found.notes.push_back(
        fmt::format("the topic '{}' is made by the cluster with the first message", topic));
  } else if (*code != RD_KAFKA_RESP_ERR_NO_ERROR &&
             *code != RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) {
    found.problems.push_back(topic_error(*code, topic, options));
  }
}

/// Of the source's or sink's client, what a client that only asks takes.
ClientOptions without(ClientOptions options, std::string_view prefix) {
  std::erase_if(options.properties,
                [&](const auto& property) { return property.first.starts_with(prefix); });
  return options;
}

}  // namespace

Inspection KafkaSink::inspect(const std::optional<std::string>& subject, std::stop_token stop) {
  const ClientOptions options = without(options_.client, "transactional.");
  Inspector inspector(options);
  Inspection found = Inspection::of(inspector.connect(std::move(stop)));
  if (!found.problems.empty() || !subject) return found;
  if (const auto problem = topic_problem(*subject); !problem.empty()) {
    found.problems.push_back(misconfigured("illegal_topic",
                                           fmt::format("topic '{}': {}", *subject, problem),
                                           "correct the topic, or the template that it is of"));
  } else {
    inspect_topic(inspector, *subject, &options_, options, found);
  }
  return found;
}

Inspection KafkaSource::inspect(std::stop_token stop) {
  const ClientOptions options = without(options_.client, "group.");
  Inspector inspector(options);
  Inspection found = Inspection::of(inspector.connect(std::move(stop)));
  if (!found.problems.empty()) return found;
  for (const std::string& topic : options_.topics) {
    if (!topic.starts_with('^')) inspect_topic(inspector, topic, nullptr, options, found);
  }
  return found;
}

std::vector<Claim> KafkaSource::claims() const {
  std::vector<Claim> claims;
  for (const std::string& topic : options_.topics) {
    Claim claim{.what = fmt::format("the group '{}' on the topic '{}'", options_.group, topic),
                .servers = {},
                .effect = "each of them gets some of the partitions only",
                .remedy = "give each pipeline a group_id of its own"};
    std::string_view rest = options_.client.brokers;
    while (!rest.empty()) {
      const auto comma = std::min(rest.find(','), rest.size());
      claim.servers.emplace_back(rest.substr(0, comma));
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
    claims.push_back(std::move(claim));
  }
  return claims;
}

}  // namespace relay::kafka
