#include "backends/kafka/statistics.h"

#include <simdjson.h>

#include <algorithm>

namespace relay::kafka {

namespace {

using simdjson::dom::element;

constexpr double kMicroseconds = 1e-6;

double number(const simdjson::simdjson_result<element>& value) {
  double found = 0;
  // -1 stands for what is not known.
  return value.get(found) == simdjson::SUCCESS ? std::max(found, 0.0) : 0;
}

void add_broker(const element& broker, ClientStatistics& sums) {
  std::string_view state;
  if (broker["state"].get(state) == simdjson::SUCCESS && state == "UP") ++sums.connected_brokers;
  sums.waiting_requests += number(broker["outbuf_cnt"]);
  sums.requests_in_flight += number(broker["waitresp_cnt"]);
  sums.retried_requests += number(broker["txretries"]);
  sums.timed_out_requests += number(broker["req_timeouts"]);
  const auto slower = [&](double& seconds, std::string_view of) {
    seconds = std::max(seconds, number(broker["rtt"][of]) * kMicroseconds);
  };
  slower(sums.round_trip_average, "avg");
  slower(sums.round_trip_p99, "p99");
}

}  // namespace

std::optional<ClientStatistics> parse_statistics(std::string_view json) {
  simdjson::dom::parser parser;
  const auto parsed = parser.parse(json.data(), json.size());
  simdjson::dom::object brokers;
  if (parsed.error() || parsed["brokers"].get(brokers) != simdjson::SUCCESS) return std::nullopt;
  ClientStatistics found;
  found.queued_messages = number(parsed["msg_cnt"]);
  found.queued_bytes = number(parsed["msg_size"]);
  found.sent_bytes = number(parsed["tx_bytes"]);
  found.received_bytes = number(parsed["rx_bytes"]);
  for (const auto& [name, broker] : brokers) add_broker(broker, found);
  return found;
}

void Statistics::take(std::string_view json) {
  const auto found = parse_statistics(json);
  const MutexLock lock(mutex_);
  if (found) last_ = found;
}

void Statistics::forget() {
  const MutexLock lock(mutex_);
  last_.reset();
}

std::optional<EndReport> Statistics::report() const {
  const MutexLock lock(mutex_);
  if (!last_) return std::nullopt;
  EndReport report;
  report.state = last_->connected_brokers > 0 ? "connected" : "disconnected";
  const auto add = [&](const char* name, const char* help, double value) {
    report.numbers.push_back({name, help, value});
  };
  add("kafka_connected_brokers", "Brokers that the client has a connection to",
      last_->connected_brokers);
  add("kafka_queued_messages", "Messages that the producer has and that are not acknowledged",
      last_->queued_messages);
  add("kafka_queued_bytes", "Bytes of these messages", last_->queued_bytes);
  add("kafka_waiting_requests", "Requests that wait to be sent", last_->waiting_requests);
  add("kafka_requests_in_flight", "Requests that were sent and not answered",
      last_->requests_in_flight);
  add("kafka_sent_bytes", "Bytes that the client has sent since it began", last_->sent_bytes);
  add("kafka_received_bytes", "Bytes that the client has received since it began",
      last_->received_bytes);
  add("kafka_retried_requests", "Requests that the client has tried again since it began",
      last_->retried_requests);
  add("kafka_timed_out_requests", "Requests without an answer in time since the client began",
      last_->timed_out_requests);
  add("kafka_round_trip_average_seconds", "Average time of a request, of the slowest broker",
      last_->round_trip_average);
  add("kafka_round_trip_p99_seconds", "99th percentile of that time, of the slowest broker",
      last_->round_trip_p99);
  return report;
}

}  // namespace relay::kafka
