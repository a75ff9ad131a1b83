#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "backends/kafka/client.h"
#include "backends/kafka/options.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/lease.h"
#include "core/message.h"

struct rd_kafka_op_s;
struct rd_kafka_queue_s;
struct rd_kafka_topic_s;

namespace relay::kafka {

/// How messages are put together into requests.
struct Batching {
  std::size_t bytes = 1000000;
  bool singly = false;  ///< each message in a batch of its own, so that an error is its own as well

  friend bool operator==(const Batching&, const Batching&) = default;
};

/// One producer of librdkafka. What it still has under way when it goes is forgotten: it may have
/// been stored or not. One thread.
class Producer {
 public:
  /// Connects and waits for a first broker. Errors as of `wait_for_cluster`.
  /// Its connections end with the lease, and there are no new ones without it.
  static Result<std::unique_ptr<Producer>> open(const SinkOptions& options, Batching batching,
                                                Statistics& statistics, Lease& lease,
                                                std::stop_token stop);
  ~Producer();
  Producer(const Producer&) = delete;
  Producer& operator=(const Producer&) = delete;

  const Batching& batching() const { return batching_; }
  /// Fatal: nothing can be sent any more.
  bool broken() const { return events_.fatal; }
  /// Why the cluster is not reached, as far as it is known.
  Error trouble() const;

  enum class Accepted { yes, full };
  /// Hands a copy of the message over; `index` names it in reports. An error: it was not taken, and
  /// there will be no report.
  Result<Accepted> send(const Message& message, std::size_t index);

  /// What became of one message. `code` 0: stored.
  struct Report {
    std::size_t index;
    int code;
  };
  std::vector<Report> take_reports();
  /// Listens to the library while nothing is under way. Does not wait.
  void serve();

  /// Waits for reports, at most that long. `flush`: there are no more messages to wait for, so what
  /// lingers is sent at once.
  void wait(std::chrono::milliseconds time, bool flush, std::stop_token stop);

  /// Takes back what was not sent yet; there will be a report of it.
  void take_back_unsent();
  /// Gives up what is under way; the reports of what was stored until now can still be taken.
  void abandon();

  /// Makes these topics. Says why some could not be made; one that another client made meanwhile
  /// counts as made. Rejected: no topic of that name can be made.
  Result<std::map<std::string, Error>> create_topics(const std::set<std::string>& topics,
                                                     const NewTopics& as, Deadline until,
                                                     std::stop_token stop);

  /// max.message.bytes of those of the topics that exist; 0 where we may not know it.
  Result<std::map<std::string, std::size_t>> topic_limits(const std::set<std::string>& topics,
                                                          Deadline until, std::stop_token stop);

 private:
  struct Free {
    void operator()(rd_kafka_s* client) const;
    void operator()(rd_kafka_queue_s* queue) const;
    void operator()(rd_kafka_topic_s* topic) const;
    void operator()(rd_kafka_op_s* event) const;
  };
  template <class T>
  using Owned = std::unique_ptr<T, Free>;
  using Answer = Owned<rd_kafka_op_s>;
  struct Callbacks;

  Producer(const SinkOptions& options, Batching batching, Statistics& statistics, Lease& lease)
      : options_(options), batching_(batching), statistics_(statistics), sockets_(lease) {}
  Result<void> start();
  std::int64_t timestamp_ms(const Message& message) const;
  Result<Answer> wait_answer(rd_kafka_queue_s* answers, Deadline until, std::stop_token stop) const;
  rd_kafka_topic_s* topic(std::string_view name);

  const SinkOptions& options_;
  const Batching batching_;
  Statistics& statistics_;
  LeasedSockets sockets_;  // of the library's threads
  ClientEvents events_;
  std::vector<Report> reports_;
  Owned<rd_kafka_s> client_;  // behind what its callbacks write to
  Owned<rd_kafka_queue_s> events_queue_;
  std::map<std::string, Owned<rd_kafka_topic_s>, std::less<>> topics_;
  rd_kafka_topic_s* last_topic_ = nullptr;
  std::string last_topic_name_;
};

}  // namespace relay::kafka
