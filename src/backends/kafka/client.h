#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "backends/kafka/iam_tokens.h"
#include "backends/kafka/options.h"
#include "backends/kafka/statistics.h"
#include "core/deadline.h"
#include "core/error.h"

struct rd_kafka_s;
struct rd_kafka_conf_s;

namespace relay::kafka {

/// What a client of librdkafka said about itself while it was polled. One thread: the polling one.
struct ClientEvents {
  std::string pipeline;
  std::optional<int> trouble;  ///< the last error that says why the cluster is not reached
  std::string trouble_detail;
  bool fatal = false;                 ///< the client is of no use any more
  void* owner = nullptr;              ///< for the owner's own callbacks
  Statistics* statistics = nullptr;   ///< where they are kept; it outlives the client
  std::unique_ptr<IamTokens> tokens;  ///< null: the client needs none
};

/// Properties that become a client. The events are told to `events`, which outlives the client.
class Configuration {
 public:
  /// Misconfigured: a property that librdkafka does not take, or a file that cannot be read.
  static Result<Configuration> make(const ClientOptions& options, ClientEvents& events);

  Result<void> set(std::string_view name, std::string_view value);
  rd_kafka_conf_s* get() { return conf_.get(); }
  rd_kafka_conf_s* release() { return conf_.release(); }

 private:
  struct Free {
    void operator()(rd_kafka_conf_s* conf) const;
  };
  std::unique_ptr<rd_kafka_conf_s, Free> conf_;
};

/// Waits until a broker answers. Transient: none did within `time`. Misconfigured: the cluster
/// refuses us. Serves the client's events meanwhile.
Result<void> wait_for_cluster(rd_kafka_s* client, const ClientOptions& options,
                              ClientEvents& events, Deadline until, std::stop_token stop);

/// Before the client goes: a token that it waits for does not hold that back.
void stop_tokens(const rd_kafka_s* client);

/// The trouble that the events tell of, or that nothing was heard.
Error trouble_of(const ClientEvents& events, std::string_view brokers);

/// Whether librdkafka has `fetch.queue.backoff.ms`: once it has fetched enough ahead, it looks for
/// room again after that time. Versions before 2.2 look once a second.
bool rdkafka_has_fetch_backoff();

/// Warns where certificates are not checked.
void warn_of_no_verification(const ClientOptions& options);

}  // namespace relay::kafka
