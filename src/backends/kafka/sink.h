#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "backends/kafka/options.h"
#include "backends/kafka/producer.h"
#include "connector/sink.h"

namespace relay::kafka {

/// Sends to Kafka topics. Delivered means that the broker's acknowledgement came, for which all
/// in-sync replicas have the message unless `acks` says otherwise. Thousands of messages are under
/// way at once; the idempotent producer keeps the order within a partition, whatever is tried again
/// inside it. Messages never expire one by one: when nothing is heard for `delivery_timeout`, or
/// the producer fails for good, all that is under way is `unknown` and a new producer begins at the
/// first of them.
///
/// A broker refuses whole batches. So a message whose batch was refused is sent again by itself
/// before it counts as rejected, and the batches are cut to what the topics take.
class KafkaSink : public Sink {
 public:
  explicit KafkaSink(SinkOptions options)
      : options_(std::move(options)), batch_bytes_(options_.batch_bytes) {}

  Result<void> open(std::stop_token stop) override;
  std::vector<Outcome> deliver(std::span<const Message> messages, Deadline deadline,
                               std::stop_token stop) override;
  void close() override;
  Inspection inspect(const std::optional<std::string>& subject, std::stop_token stop) override;

 private:
  class Delivery;

  Result<void> use(Batching batching, std::stop_token stop);
  void learn_limits(std::span<const Message> messages, Deadline deadline, std::stop_token stop);
  void send_suspects(std::span<const Message> messages, const std::vector<std::size_t>& suspects,
                     std::span<Outcome> outcomes, Deadline deadline, std::stop_token stop);

  const SinkOptions options_;
  std::size_t batch_bytes_;             // what every topic used so far takes
  std::set<std::string> known_topics_;  // whose limit was asked for
  std::unique_ptr<Producer> producer_;
};

}  // namespace relay::kafka
