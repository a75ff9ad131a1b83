#pragma once

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

#include "backends/kafka/consumer.h"
#include "backends/kafka/event.h"
#include "backends/kafka/offsets.h"
#include "backends/kafka/options.h"
#include "connector/source.h"

namespace relay::kafka {

/// Reads topics as a member of a consumer group. An offset is committed only when `acknowledge`
/// says that everything before it is settled, so what was read and not settled comes again: to
/// this member after a restart, to another one after a rebalance. While the pipeline takes nothing
/// in, it stays in the group: fetching pauses, polling goes on.
class KafkaSource : public Source {
 public:
  KafkaSource(SourceOptions options, EventRules rules, FieldMapping mapping)
      : options_(std::move(options)), rules_(std::move(rules)), mapping_(std::move(mapping)) {}

  Result<void> open(std::stop_token stop) override;
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline,
                           std::stop_token stop) override;
  Result<void> acknowledge(const Position& settled, std::span<const DeadLetter>) override;
  std::chrono::milliseconds tend(std::stop_token stop) override;
  std::optional<std::int64_t> lag() override;
  void close() override;
  std::optional<EndReport> report() const override { return statistics_.report(); }
  Inspection inspect(std::stop_token stop) override;
  std::vector<Claim> claims() const override;

 private:
  void add(RecordBatch& batch, const Consumed& consumed);
  void replace(std::unique_ptr<Consumer> consumer);
  const std::shared_ptr<const TableShape>& shape_of(std::string_view topic);

  const SourceOptions options_;
  EventRules rules_;
  FieldMapping mapping_;
  Offsets offsets_;
  std::set<Place> remade_;  // partitions that the next consumer reads from their start
  Statistics statistics_;
  Mutex consumer_mutex_;
  /// The reader replaces it with the mutex held; `acknowledge` holds the mutex.
  std::unique_ptr<Consumer> consumer_;
  SteadyClock::time_point read_at_ = SteadyClock::now();
  std::optional<std::int64_t> lag_;
  SteadyClock::time_point lag_due_{};
  std::map<std::string, std::shared_ptr<const TableShape>, std::less<>> shapes_;  // by topic
};

}  // namespace relay::kafka
