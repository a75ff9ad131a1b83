#include "backends/kafka/source.h"

#include <algorithm>

namespace relay::kafka {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kSlice{200};      // how late a stop may be noticed at worst
constexpr milliseconds kPatience{5000};  // for a cluster that is away, before that is reported
constexpr milliseconds kBeforePausing{1000};
constexpr milliseconds kLagEvery{900};  // the cluster may have to be asked; see Source::lag

}  // namespace

Result<void> KafkaSource::open(std::stop_token stop) {
  if (consumer_) remade_.merge(consumer_->remade());
  close();
  warn_of_no_verification(options_.client);
  auto consumer = Consumer::open(options_, offsets_, remade_, statistics_, stop);
  if (!consumer) return fail(consumer.error());
  remade_.clear();
  rules_.cluster = (*consumer)->cluster();
  replace(std::move(*consumer));
  return {};
}

void KafkaSource::replace(std::unique_ptr<Consumer> consumer) {
  {
    const MutexLock lock(consumer_mutex_);
    std::swap(consumer_, consumer);
  }
  // The old one ends here, without holding back an acknowledgement.
}

Result<RecordBatch> KafkaSource::read(const ReadLimits& limits, Deadline deadline,
                                      std::stop_token stop) {
  if (!consumer_ || consumer_->broken()) {
    if (auto opened = open(stop); !opened) return fail(opened.error());
  }
  RecordBatch batch;
  const auto full = [&] {
    return batch.records.size() >= limits.records || batch.arena.size() >= limits.bytes;
  };
  while (!full()) {
    const milliseconds wait = batch.empty() ? std::min(kSlice, deadline.left()) : milliseconds(0);
    auto next = consumer_->next(wait, stop);
    if (!next) {
      if (batch.empty()) return fail(next.error());
      break;
    }
    if (*next) {
      add(batch, **next);
    } else if (!batch.empty() || deadline.passed() || stop.stop_requested()) {
      break;
    }
  }
  if (batch.empty() && !stop.stop_requested()) {
    if (auto trouble = consumer_->trouble(Deadline::after(kPatience), stop)) return fail(*trouble);
  }
  read_at_ = SteadyClock::now();
  return batch;
}

/// Pausing drops what is fetched ahead: that is for a pipeline that waits long.
milliseconds KafkaSource::tend(std::stop_token) {
  if (consumer_ && !consumer_->broken() && SteadyClock::now() - read_at_ >= kBeforePausing) {
    consumer_->idle();
  }
  return kBeforePausing;
}

void KafkaSource::add(RecordBatch& batch, const Consumed& consumed) {
  Record record = to_record(consumed, rules_, mapping_, batch.arena);
  record.id = offsets_.add(consumed.topic, consumed.partition, consumed.offset);
  batch.add(std::move(record), shape_of(consumed.topic));
}

const std::shared_ptr<const TableShape>& KafkaSource::shape_of(std::string_view topic) {
  const auto known = shapes_.find(topic);
  if (known != shapes_.end()) return known->second;
  const std::string name(topic);
  return shapes_.emplace(name, std::make_shared<const TableShape>(TableShape{name, {}}))
      .first->second;
}

Result<void> KafkaSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  // Offsets of a consumer that is replaced meanwhile are none of the new one.
  const MutexLock lock(consumer_mutex_);
  const auto next = offsets_.settle(settled.id);
  if (consumer_) consumer_->store(next);
  return {};
}

std::optional<std::int64_t> KafkaSource::lag() {
  if (!consumer_) return std::nullopt;
  if (SteadyClock::now() >= lag_due_) {
    lag_ = consumer_->lag();
    lag_due_ = SteadyClock::now() + kLagEvery;
  }
  return lag_;
}

void KafkaSource::close() {
  replace(nullptr);
  statistics_.forget();
  offsets_.give_up_all();
}

}  // namespace relay::kafka
