#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/message.h"
#include "core/mutex.h"
#include "pipeline/report.h"

namespace relay {

/// The numbers of one pipeline. Any thread may count.
class PipelineMetrics {
 public:
  prometheus::Counter& delivered;
  prometheus::Counter& received;
  prometheus::Counter& bytes;
  prometheus::Counter& errors;
  prometheus::Counter& duplicates;
  prometheus::Counter& id_conflicts;
  prometheus::Counter& rejected;
  prometheus::Counter& retries;
  prometheus::Gauge& lag;
  prometheus::Gauge& dead_letters;
  prometheus::Gauge& state;
  prometheus::Gauge& owned;
  prometheus::Gauge& position;
  prometheus::Gauge& oldest_open_writer;
  prometheus::Gauge& source_connected;
  prometheus::Gauge& sink_connected;
  prometheus::Counter& gone;

  /// Counts a delivery of `messages` that took `took` and ended at `now` with these outcomes.
  void observe_delivery(std::span<const Message> messages, std::span<const Outcome> outcomes,
                        std::chrono::nanoseconds took, Timestamp now);
  void observe_batch(std::size_t records);
  /// Shows the numbers that source and sink report. What they no longer report is no longer shown.
  void show_ends(const PipelineReport& report);

  /// Bounds of the time from the change being written to its acknowledgement, as text ("2 ms").
  struct Quantiles {
    std::string median;
    std::string p99;
  };
  Quantiles end_to_end_quantiles() const;

 private:
  friend class Metrics;
  PipelineMetrics(class Metrics& metrics, const std::string& pipeline);
  struct OfEnd {
    prometheus::Family<prometheus::Gauge>* family = nullptr;
    prometheus::Gauge* gauge = nullptr;
  };

  class Metrics& metrics_;
  const std::string pipeline_;
  Mutex mutex_;
  std::map<std::string, OfEnd> of_ends_ RELAY_GUARDED_BY(mutex_);  // by name
  prometheus::Histogram& duration_;
  prometheus::Histogram& end_to_end_;
  prometheus::Histogram& batch_size_;
};

/// All metrics of the process. docs/operations.md lists the relay's. Any thread.
class Metrics {
 public:
  /// `prefix` begins the name of each: "pgtrickle_relay_".
  explicit Metrics(std::string prefix);
  ~Metrics();

  /// The numbers of a pipeline: the same object each time. They are 0 from the first call.
  std::shared_ptr<PipelineMetrics> pipeline(const std::string& name);
  /// Ends the series of a pipeline that was deleted. The caller has let go of its numbers, and so
  /// has the pipeline.
  void drop(const std::string& name);

  prometheus::Gauge& pool_connections();
  /// 1 while something is wrong with how that outbox records its table.
  prometheus::Gauge& outbox_problem(const std::string& outbox);
  /// The text that Prometheus scrapes.
  std::string text() const;

 private:
  friend class PipelineMetrics;
  using Labels = std::map<std::string, std::string>;
  const std::string prefix_;
  prometheus::Registry registry_;
  struct Families;
  std::unique_ptr<Families> families_;
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<PipelineMetrics>> pipelines_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay
