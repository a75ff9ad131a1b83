#include "pipeline/metrics.h"

#include <fmt/core.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <sstream>
#include <utility>

namespace relay {

namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Family;

const std::vector<double> kSeconds = {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
                                      0.2,    0.5,   1,     2,     5,    10,   30,   60};
const std::vector<double> kSizes = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000};

std::size_t bucket_of(const std::vector<double>& bounds, double value) {
  return static_cast<std::size_t>(std::lower_bound(bounds.begin(), bounds.end(), value) -
                                  bounds.begin());
}

double seconds(auto duration) {
  return std::chrono::duration<double>(duration).count();
}

/// Makes the families of a registry, whose names begin with one prefix.
struct FamilyMaker {
  prometheus::Registry& registry;
  const std::string& prefix;

  Family<prometheus::Counter>& counter(std::string_view suffix, const char* help) const {
    return BuildCounter().Name(name(suffix)).Help(help).Register(registry);
  }
  Family<prometheus::Gauge>& gauge(std::string_view suffix, const char* help) const {
    return BuildGauge().Name(name(suffix)).Help(help).Register(registry);
  }
  Family<prometheus::Histogram>& histogram(std::string_view suffix, const char* help) const {
    return BuildHistogram().Name(name(suffix)).Help(help).Register(registry);
  }
  std::string name(std::string_view suffix) const { return prefix + std::string(suffix); }
};

}  // namespace

struct Metrics::Families {
  explicit Families(const FamilyMaker& make)
      : delivered(make.counter("messages_delivered_total", "Messages acknowledged by the sink")),
        received(make.counter("messages_received_total", "Records read from the source")),
        bytes(make.counter("bytes_total", "Bytes of message bodies delivered")),
        errors(make.counter("delivery_errors_total",
                            "Deliveries that failed, retried or not, one for each message")),
        duplicates(make.counter("duplicates_total", "Messages that the broker had already")),
        id_conflicts(make.counter("id_conflicts_total",
                                  "Messages whose id another message in the inbox had")),
        rejected(make.counter("rejected_total", "Messages that no retry can deliver")),
        retries(make.counter("retries_total", "Times that a delivery was tried again")),
        lag(make.gauge("consumer_lag", "Records that wait to be delivered")),
        dead_letters(make.gauge("dlq_messages", "Unresolved dead letters")),
        state(make.gauge("pipeline_state",
                         "0 starting, 1 idle, 2 running, 3 retrying, 4 paused, 5 misconfigured, "
                         "6 stopped, 7 standby")),
        owned(make.gauge("owned", "1 where this instance owns the pipeline")),
        position(make.gauge("position", "Last settled id of the source")),
        oldest_open_writer(make.gauge(
            "oldest_open_writer_seconds",
            "Age of the oldest open transaction that holds back the reading, 0 for none")),
        source_connected(make.gauge("source_connected",
                                    "1 where the last attempt to reach the source succeeded")),
        sink_connected(
            make.gauge("sink_connected", "1 where the last attempt to reach the sink succeeded")),
        gone(make.counter("delivered_rows_gone_total",
                          "Rows that had been delivered and that the database lost in a failover")),
        duration(make.histogram("delivery_duration_seconds",
                                "Time from handing a message to the sink to its acknowledgement")),
        end_to_end(make.histogram("end_to_end_seconds",
                                  "Time from the change being written to its acknowledgement")),
        batch_size(make.histogram("batch_size", "Records in a batch")),
        pool_connections(make.gauge("pool_connections", "Open sessions of the pool")),
        outbox_problem(make.gauge("outbox_problem",
                                  "1 while an outbox does not record its table as it should")),
        build_info(make.gauge("build_info", "1, with the version as a label")) {}

  Family<prometheus::Counter>&delivered, &received, &bytes, &errors, &duplicates, &id_conflicts,
      &rejected, &retries;
  Family<prometheus::Gauge>&lag, &dead_letters, &state, &owned, &position, &oldest_open_writer,
      &source_connected, &sink_connected;
  Family<prometheus::Counter>& gone;
  Family<prometheus::Histogram>&duration, &end_to_end, &batch_size;
  Family<prometheus::Gauge>&pool_connections, &outbox_problem, &build_info;
};

PipelineMetrics::PipelineMetrics(Metrics& metrics, const std::string& pipeline)
    : delivered(metrics.families_->delivered.Add({{"pipeline", pipeline}})),
      received(metrics.families_->received.Add({{"pipeline", pipeline}})),
      bytes(metrics.families_->bytes.Add({{"pipeline", pipeline}})),
      errors(metrics.families_->errors.Add({{"pipeline", pipeline}})),
      duplicates(metrics.families_->duplicates.Add({{"pipeline", pipeline}})),
      id_conflicts(metrics.families_->id_conflicts.Add({{"pipeline", pipeline}})),
      rejected(metrics.families_->rejected.Add({{"pipeline", pipeline}})),
      retries(metrics.families_->retries.Add({{"pipeline", pipeline}})),
      lag(metrics.families_->lag.Add({{"pipeline", pipeline}})),
      dead_letters(metrics.families_->dead_letters.Add({{"pipeline", pipeline}})),
      state(metrics.families_->state.Add({{"pipeline", pipeline}})),
      owned(metrics.families_->owned.Add({{"pipeline", pipeline}})),
      position(metrics.families_->position.Add({{"pipeline", pipeline}})),
      oldest_open_writer(metrics.families_->oldest_open_writer.Add({{"pipeline", pipeline}})),
      source_connected(metrics.families_->source_connected.Add({{"pipeline", pipeline}})),
      sink_connected(metrics.families_->sink_connected.Add({{"pipeline", pipeline}})),
      gone(metrics.families_->gone.Add({{"pipeline", pipeline}})),
      metrics_(metrics),
      pipeline_(pipeline),
      duration_(metrics.families_->duration.Add({{"pipeline", pipeline}}, kSeconds)),
      end_to_end_(metrics.families_->end_to_end.Add({{"pipeline", pipeline}}, kSeconds)),
      batch_size_(metrics.families_->batch_size.Add({{"pipeline", pipeline}}, kSizes)) {}

void PipelineMetrics::observe_delivery(std::span<const Message> messages,
                                       std::span<const Outcome> outcomes,
                                       std::chrono::nanoseconds took, Timestamp now) {
  std::vector<double> ages(kSeconds.size() + 1, 0.0);
  double sum = 0;
  std::size_t size = 0;
  std::size_t settled = 0;
  std::size_t known = 0;
  std::size_t conflicts = 0;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    const Outcome::Kind kind = outcomes[i].kind;
    if (outcomes[i].id_conflict) ++conflicts;
    if (kind != Outcome::Kind::delivered && kind != Outcome::Kind::duplicate) continue;
    const double age = std::max(0.0, seconds(now - messages[i].created_at));
    ages[bucket_of(kSeconds, age)] += 1;
    sum += age;
    size += messages[i].body.size();
    ++settled;
    if (kind == Outcome::Kind::duplicate) ++known;
  }
  id_conflicts.Increment(static_cast<double>(conflicts));
  if (settled == 0) return;
  const auto count = static_cast<double>(settled);
  std::vector<double> durations(kSeconds.size() + 1, 0.0);
  durations[bucket_of(kSeconds, seconds(took))] = count;
  duration_.ObserveMultiple(durations, seconds(took) * count);
  end_to_end_.ObserveMultiple(ages, sum);
  delivered.Increment(count);
  duplicates.Increment(static_cast<double>(known));
  bytes.Increment(static_cast<double>(size));
}

void PipelineMetrics::observe_batch(std::size_t records) {
  received.Increment(static_cast<double>(records));
  batch_size_.Observe(static_cast<double>(records));
}

void PipelineMetrics::show_ends(const PipelineReport& report) {
  const MutexLock lock(mutex_);
  auto before = std::exchange(of_ends_, {});
  const FamilyMaker make{metrics_.registry_, metrics_.prefix_};
  for (const auto* end : {&report.source, &report.sink}) {
    if (!*end) continue;
    for (const EndReport::Number& number : (*end)->numbers) {
      auto& [family, gauge] = of_ends_[number.name];
      if (const auto known = before.extract(number.name)) {
        family = known.mapped().family;
        gauge = known.mapped().gauge;
      } else {
        family = &make.gauge(number.name, number.help.c_str());
        gauge = &family->Add({{"pipeline", pipeline_}});
      }
      gauge->Set(number.value);
    }
  }
  for (const auto& [name, ended] : before) ended.family->Remove(ended.gauge);
}

PipelineMetrics::Quantiles PipelineMetrics::end_to_end_quantiles() const {
  const auto histogram = end_to_end_.Collect().histogram;
  const auto within = [&](double share) -> std::string {
    const double wanted = share * static_cast<double>(histogram.sample_count);
    for (const auto& bucket : histogram.bucket) {
      if (histogram.sample_count == 0 || static_cast<double>(bucket.cumulative_count) < wanted) {
        continue;
      }
      if (bucket.upper_bound > kSeconds.back()) break;
      return bucket.upper_bound < 1 ? fmt::format("{:g} ms", bucket.upper_bound * 1000)
                                    : fmt::format("{:g} s", bucket.upper_bound);
    }
    return histogram.sample_count == 0 ? "nothing was delivered" : "more than a minute";
  };
  return {within(0.5), within(0.99)};
}

Metrics::~Metrics() = default;

Metrics::Metrics(std::string prefix)
    : prefix_(std::move(prefix)),
      families_(std::make_unique<Families>(FamilyMaker{registry_, prefix_})) {
  families_->build_info.Add({{"version", RELAY_VERSION}}).Set(1);
}

std::shared_ptr<PipelineMetrics> Metrics::pipeline(const std::string& name) {
  const MutexLock lock(mutex_);
  auto& metrics = pipelines_[name];
  if (!metrics) metrics.reset(new PipelineMetrics(*this, name));
  return metrics;
}

void Metrics::drop(const std::string& name) {
  const MutexLock lock(mutex_);
  const auto found = pipelines_.find(name);
  if (found == pipelines_.end()) return;
  PipelineMetrics& metrics = *found->second;
  metrics.show_ends({});
  families_->delivered.Remove(&metrics.delivered);
  families_->received.Remove(&metrics.received);
  families_->bytes.Remove(&metrics.bytes);
  families_->errors.Remove(&metrics.errors);
  families_->duplicates.Remove(&metrics.duplicates);
  families_->id_conflicts.Remove(&metrics.id_conflicts);
  families_->rejected.Remove(&metrics.rejected);
  families_->retries.Remove(&metrics.retries);
  families_->lag.Remove(&metrics.lag);
  families_->dead_letters.Remove(&metrics.dead_letters);
  families_->state.Remove(&metrics.state);
  families_->owned.Remove(&metrics.owned);
  families_->position.Remove(&metrics.position);
  families_->oldest_open_writer.Remove(&metrics.oldest_open_writer);
  families_->source_connected.Remove(&metrics.source_connected);
  families_->sink_connected.Remove(&metrics.sink_connected);
  families_->gone.Remove(&metrics.gone);
  families_->duration.Remove(&metrics.duration_);
  families_->end_to_end.Remove(&metrics.end_to_end_);
  families_->batch_size.Remove(&metrics.batch_size_);
  pipelines_.erase(found);
}

prometheus::Gauge& Metrics::pool_connections() {
  return families_->pool_connections.Add({});
}

prometheus::Gauge& Metrics::outbox_problem(const std::string& outbox) {
  return families_->outbox_problem.Add({{"outbox", outbox}});
}

std::string Metrics::text() const {
  return prometheus::TextSerializer().Serialize(registry_.Collect());
}

}  // namespace relay
