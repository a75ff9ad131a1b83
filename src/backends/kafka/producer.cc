#include "backends/kafka/producer.h"

#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "backends/kafka/errors.h"
#include "core/log.h"
#include "core/plausible_time.h"

namespace relay::kafka {

using std::chrono::milliseconds;

/// Called by the thread that polls, on the producer that is being polled.
struct Producer::Callbacks {
  static void on_report(rd_kafka_t*, const rd_kafka_message_t* message, void* opaque) {
    auto& producer = *static_cast<Producer*>(static_cast<ClientEvents*>(opaque)->owner);
    producer.reports_.push_back({reinterpret_cast<std::size_t>(message->_private), message->err});
  }

  // Called by the library's thread that connects to a broker, and writes to it.
  static int open_socket(int domain, int type, int protocol, void* opaque) {
    return sockets(opaque).open(domain, type, protocol);
  }
  static int close_socket(int socket, void* opaque) { return sockets(opaque).close(socket); }
  static LeasedSockets& sockets(void* opaque) {
    return static_cast<Producer*>(static_cast<ClientEvents*>(opaque)->owner)->sockets_;
  }
};

void Producer::Free::operator()(rd_kafka_t* client) const {
  stop_tokens(client);
  rd_kafka_destroy(client);
}
void Producer::Free::operator()(rd_kafka_queue_t* queue) const {
  rd_kafka_queue_destroy(queue);
}
void Producer::Free::operator()(rd_kafka_event_t* event) const {
  rd_kafka_event_destroy(event);
}
void Producer::Free::operator()(rd_kafka_topic_t* topic) const {
  rd_kafka_topic_destroy(topic);
}

Result<std::unique_ptr<Producer>> Producer::open(const SinkOptions& options, Batching batching,
                                                 Statistics& statistics, Lease& lease,
                                                 std::stop_token stop) {
  std::unique_ptr<Producer> producer(new Producer(options, batching, statistics, lease));
  if (auto started = producer->start(); !started) return fail(started.error());
  auto reached = wait_for_cluster(producer->client_.get(), options.client, producer->events_,
                                  Deadline::after(options.client.connect_timeout), stop);
  if (!reached) return fail(reached.error());
  return producer;
}

Result<void> Producer::start() {
  auto configuration = Configuration::make(options_.client, events_);
  if (!configuration) return fail(configuration.error());
  events_.owner = this;
  events_.statistics = &statistics_;
  rd_kafka_conf_set_dr_msg_cb(configuration->get(), &Callbacks::on_report);
  rd_kafka_conf_set_socket_cb(configuration->get(), &Callbacks::open_socket);
  rd_kafka_conf_set_closesocket_cb(configuration->get(), &Callbacks::close_socket);
  Result<void> set;
  if (batching_.singly) {
    set = configuration->set("batch.num.messages", "1");
  } else if (property(options_.client, "batch.size").empty()) {
    set = configuration->set("batch.size", std::to_string(batching_.bytes));
  }
  // Without idempotence a request that is tried again comes behind those that followed it.
  if (set && !options_.idempotent && options_.ordered) {
    set = configuration->set("max.in.flight", "1");
  }
  if (!set) return fail(set.error());
  std::array<char, 512> text{};
  client_.reset(rd_kafka_new(RD_KAFKA_PRODUCER, configuration->get(), text.data(), text.size()));
  if (!client_) return fail(property_error("the sink's options", text.data()));
  configuration->release();
  events_queue_.reset(rd_kafka_queue_get_main(client_.get()));
  return {};
}

Producer::~Producer() {
  if (client_) abandon();
}

Error Producer::trouble() const {
  return trouble_of(events_, options_.client.brokers);
}

rd_kafka_topic_t* Producer::topic(std::string_view name) {
  if (last_topic_ != nullptr && name == last_topic_name_) return last_topic_;
  auto known = topics_.find(name);
  if (known == topics_.end()) {
    const std::string text(name);
    auto* made = rd_kafka_topic_new(client_.get(), text.c_str(), nullptr);
    if (made == nullptr) return nullptr;
    known = topics_.emplace(text, made).first;
  }
  last_topic_ = known->second.get();
  last_topic_name_ = name;
  return last_topic_;
}

/// 0: the library takes the time of sending.
std::int64_t Producer::timestamp_ms(const Message& message) const {
  if (!options_.time_of_change) return 0;
  const auto at = std::chrono::floor<milliseconds>(message.created_at.time_since_epoch());
  return plausible_time(at).time_since_epoch() / milliseconds(1);
}

Result<Producer::Accepted> Producer::send(const Message& message, std::size_t index) {
  rd_kafka_topic_t* const target = topic(message.subject);
  const auto refused = [&](rd_kafka_resp_err_t code) {
    return fail(delivery_error(code, {}, message.subject, options_.client.brokers));
  };
  if (target == nullptr) return refused(rd_kafka_last_error());

  rd_kafka_headers_t* headers = rd_kafka_headers_new(8);
  for_each_header(message, [&](std::string_view name, std::string_view value) {
    rd_kafka_header_add(headers, name.data(), static_cast<ssize_t>(name.size()), value.data(),
                        static_cast<ssize_t>(value.size()));
  });
  // An empty key is no key: the message may go to any partition.
  const void* const key = message.key.empty() ? nullptr : message.key.data();
  // The library takes no const: it copies.
  void* const body = message.tombstone ? nullptr : const_cast<char*>(message.body.data());
  const std::size_t size = message.tombstone ? 0 : message.body.size();
  const auto result = rd_kafka_producev(
      client_.get(), RD_KAFKA_V_RKT(target), RD_KAFKA_V_KEY(key, message.key.size()),
      RD_KAFKA_V_VALUE(body, size), RD_KAFKA_V_TIMESTAMP(timestamp_ms(message)),
      RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
      RD_KAFKA_V_OPAQUE(reinterpret_cast<void*>(index)), RD_KAFKA_V_END);
  if (result == RD_KAFKA_RESP_ERR_NO_ERROR) return Accepted::yes;
  rd_kafka_headers_destroy(headers);  // they are the library's only where it took the message
  if (result == RD_KAFKA_RESP_ERR__QUEUE_FULL) return Accepted::full;
  return refused(result);
}

void Producer::serve() {
  rd_kafka_poll(client_.get(), 0);
}

std::vector<Producer::Report> Producer::take_reports() {
  serve();
  return std::exchange(reports_, {});
}

void Producer::wait(milliseconds time, bool flush, std::stop_token stop) {
  if (!reports_.empty() || stop.stop_requested()) return;
  const std::stop_callback wake(stop, [this] { rd_kafka_queue_yield(events_queue_.get()); });
  const int wait_ms = static_cast<int>(std::max<milliseconds::rep>(1, time.count()));
  if (flush) {
    rd_kafka_flush(client_.get(), wait_ms);
  } else {
    rd_kafka_poll(client_.get(), wait_ms);
  }
}

void Producer::take_back_unsent() {
  rd_kafka_purge(client_.get(), RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_NON_BLOCKING);
}

void Producer::abandon() {
  rd_kafka_purge(client_.get(), RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT |
                                    RD_KAFKA_PURGE_F_NON_BLOCKING);
  rd_kafka_poll(client_.get(), 0);
}

namespace {

std::optional<std::size_t> limit_of(const rd_kafka_ConfigResource_t* topic) {
  std::size_t count = 0;
  const auto** entries = rd_kafka_ConfigResource_configs(topic, &count);
  for (std::size_t i = 0; i < count; ++i) {
    if (rd_kafka_ConfigEntry_name(entries[i]) != std::string_view("max.message.bytes")) continue;
    const char* text = rd_kafka_ConfigEntry_value(entries[i]);
    const std::string_view value = text == nullptr ? std::string_view() : text;
    std::size_t limit = 0;
    std::from_chars(value.data(), value.data() + value.size(), limit);
    return limit;
  }
  return std::nullopt;
}

}  // namespace

Result<Producer::Answer> Producer::wait_answer(rd_kafka_queue_t* answers, Deadline until,
                                               std::stop_token stop) const {
  Answer answer;
  while (!answer) {
    if (until.passed() || stop.stop_requested()) return fail(trouble());
    constexpr int kSliceMs = 50;
    answer.reset(rd_kafka_queue_poll(answers, kSliceMs));
  }
  if (const auto code = rd_kafka_event_error(answer.get()); code != RD_KAFKA_RESP_ERR_NO_ERROR) {
    return fail(
        cluster_error(code, rd_kafka_event_error_string(answer.get()), options_.client.brokers));
  }
  return answer;
}

Result<std::map<std::string, std::size_t>> Producer::topic_limits(
    const std::set<std::string>& topics, Deadline until, std::stop_token stop) {
  std::vector<rd_kafka_ConfigResource_t*> asked;
  for (const std::string& name : topics) {
    asked.push_back(rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, name.c_str()));
  }
  const Owned<rd_kafka_queue_t> answers(rd_kafka_queue_new(client_.get()));
  rd_kafka_DescribeConfigs(client_.get(), asked.data(), asked.size(), nullptr, answers.get());
  rd_kafka_ConfigResource_destroy_array(asked.data(), asked.size());

  const auto answer = wait_answer(answers.get(), until, std::move(stop));
  if (!answer) return fail(answer.error());
  std::map<std::string, std::size_t> limits;
  std::size_t count = 0;
  const auto** resources = rd_kafka_DescribeConfigs_result_resources(
      rd_kafka_event_DescribeConfigs_result(answer->get()), &count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto error = rd_kafka_ConfigResource_error(resources[i]);
    if (error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) continue;
    limits.emplace(rd_kafka_ConfigResource_name(resources[i]), limit_of(resources[i]).value_or(0));
  }
  return limits;
}

Result<std::map<std::string, Error>> Producer::create_topics(const std::set<std::string>& topics,
                                                             const NewTopics& as, Deadline until,
                                                             std::stop_token stop) {
  const auto destroy = [](std::vector<rd_kafka_NewTopic_t*>* made) {
    rd_kafka_NewTopic_destroy_array(made->data(), made->size());
  };
  std::vector<rd_kafka_NewTopic_t*> asked;
  const std::unique_ptr<std::vector<rd_kafka_NewTopic_t*>, decltype(destroy)> owned(&asked,
                                                                                    destroy);
  std::array<char, 512> text{};
  for (const std::string& name : topics) {
    auto* topic = rd_kafka_NewTopic_new(name.c_str(), as.partitions, as.replication_factor,
                                        text.data(), text.size());
    if (topic == nullptr)
      return fail(creation_error(0, text.data(), name, options_.client.brokers));
    asked.push_back(topic);
    for (const auto& [key, value] : as.config) {
      rd_kafka_NewTopic_set_config(topic, key.c_str(), value.c_str());
    }
  }
  const std::unique_ptr<rd_kafka_AdminOptions_t, void (*)(rd_kafka_AdminOptions_t*)> patience(
      rd_kafka_AdminOptions_new(client_.get(), RD_KAFKA_ADMIN_OP_CREATETOPICS),
      &rd_kafka_AdminOptions_destroy);
  const int time_ms = static_cast<int>(std::max<milliseconds::rep>(1000, until.left().count()));
  rd_kafka_AdminOptions_set_operation_timeout(patience.get(), time_ms, text.data(), text.size());
  const Owned<rd_kafka_queue_t> answers(rd_kafka_queue_new(client_.get()));
  rd_kafka_CreateTopics(client_.get(), asked.data(), asked.size(), patience.get(), answers.get());
  const auto answer = wait_answer(answers.get(), until, std::move(stop));
  if (!answer) return fail(answer.error());
  std::map<std::string, Error> failures;
  std::size_t count = 0;
  const auto** made = rd_kafka_CreateTopics_result_topics(
      rd_kafka_event_CreateTopics_result(answer->get()), &count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto code = rd_kafka_topic_result_error(made[i]);
    // Another relay was faster.
    if (code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) continue;
    const std::string name = rd_kafka_topic_result_name(made[i]);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
      log::info("topic_created", options_.client.pipeline, "made the topic '{}'", name);
      continue;
    }
    const char* said = rd_kafka_topic_result_error_string(made[i]);
    failures.emplace(
        name, creation_error(code, said == nullptr ? "" : said, name, options_.client.brokers));
  }
  return failures;
}

}  // namespace relay::kafka
