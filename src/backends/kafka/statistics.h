#pragma once

#include <optional>
#include <string_view>

#include "connector/end_report.h"
#include "core/mutex.h"

namespace relay::kafka {

/// How often librdkafka tells its statistics.
inline constexpr std::string_view kStatisticsEveryMs = "10000";

/// What is shown of librdkafka's statistics: sums and maxima over its brokers, so that a pipeline
/// has the same few numbers however large the cluster is.
/// https://github.com/confluentinc/librdkafka/blob/master/STATISTICS.md
struct ClientStatistics {
  double queued_messages = 0;     ///< of a producer: handed over, and not acknowledged
  double queued_bytes = 0;        ///< the same
  double waiting_requests = 0;    ///< not sent yet
  double requests_in_flight = 0;  ///< sent, and not answered
  double sent_bytes = 0;          ///< since the client began
  double received_bytes = 0;      ///< since the client began
  double retried_requests = 0;    ///< since the client began
  double timed_out_requests = 0;  ///< since the client began
  double round_trip_average = 0;  ///< seconds, of the slowest broker
  double round_trip_p99 = 0;      ///< seconds, of the slowest broker
  double connected_brokers = 0;
};

/// Nothing where the text is none of librdkafka's.
std::optional<ClientStatistics> parse_statistics(std::string_view json);

/// The last statistics of the client that a sink or source has. Any thread.
class Statistics {
 public:
  void take(std::string_view json);
  /// The client is gone.
  void forget();
  std::optional<EndReport> report() const;

 private:
  mutable Mutex mutex_;
  std::optional<ClientStatistics> last_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay::kafka
