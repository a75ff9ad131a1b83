#pragma once

#include <cstddef>
#include <functional>
#include <map>
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
#include "core/mutex.h"

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
  std::optional<EndReport> report() const override;
  Inspection inspect(const std::optional<std::string>& subject, std::stop_token stop) override;

 private:
  class Delivery;
  /// Topics to be made. False: it may be there, for we must not look.
  using Missing = std::map<std::string, bool>;
  /// Topics that can never be made, and why.
  using ImpossibleTopics = std::map<std::string, SharedError, std::less<>>;

  Result<void> reopen(std::stop_token stop) RELAY_REQUIRES(mutex_);
  void drop() RELAY_REQUIRES(mutex_);
  Result<void> use(Batching batching, std::stop_token stop) RELAY_REQUIRES(mutex_);
  Result<void> prepare_topics(std::span<const Message> messages, Deadline deadline,
                              std::stop_token stop) RELAY_REQUIRES(mutex_);
  Missing learn_limits(const std::set<std::string>& topics, Deadline deadline, std::stop_token stop)
      RELAY_REQUIRES(mutex_);
  Result<void> create(const Missing& missing, Deadline deadline, std::stop_token stop)
      RELAY_REQUIRES(mutex_);
  void send_suspects(std::span<const Message> messages, const std::vector<std::size_t>& suspects,
                     std::span<Outcome> outcomes, Deadline deadline, std::stop_token stop)
      RELAY_REQUIRES(mutex_);

  const SinkOptions options_;
  std::size_t batch_bytes_;             // what every topic used so far takes
  std::set<std::string> known_topics_;  // whose limit was asked for
  ImpossibleTopics impossible_topics_;
  mutable Statistics statistics_;
  /// The pipeline's thread holds it while it works. Between two deliveries `report` polls the
  /// producer, so that its statistics are those of an idle one, too, and do not pile up.
  mutable Mutex mutex_;
  std::unique_ptr<Producer> producer_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay::kafka
