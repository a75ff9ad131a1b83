#include "backends/kafka/commits.h"

#include <librdkafka/rdkafka.h>

#include <algorithm>

#include "backends/kafka/partition_list.h"
#include "core/pause.h"

namespace relay::kafka {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kInterval{100};
constexpr milliseconds kLookInterval{3000};  // while nothing is to be committed
constexpr int kAnswerMs = 1000;

}  // namespace

void Commits::start(rd_kafka_s* client) {
  client_ = client;
  keeper_ = std::jthread([this](std::stop_token stop) { keep(std::move(stop)); });
}

void Commits::stop() {
  if (!keeper_.joinable()) return;
  keeper_.request_stop();
  keeper_.join();
  flush();
}

void Commits::keep(std::stop_token stop) {
  while (pause(Deadline::after(kInterval), stop)) flush();
}

bool Commits::due() const {
  if (partitions_.empty() || !remade_.empty()) return false;
  return SteadyClock::now() >= look_due_ ||
         std::ranges::any_of(partitions_, [](const auto& partition) {
           return partition.second.next != partition.second.committed;
         });
}

void Commits::begin(std::string_view topic, std::int32_t partition, std::int64_t offset) {
  const MutexLock lock(mutex_);
  partitions_.try_emplace({std::string(topic), partition}, Partition{.next = offset});
}

void Commits::settled(std::span<const Offsets::Next> offsets) {
  const MutexLock lock(mutex_);
  for (const auto& next : offsets) {
    const auto found = partitions_.find({next.topic, next.partition});
    if (found != partitions_.end()) found->second.next = next.offset;
  }
}

void Commits::end(const Place& place) {
  const MutexLock lock(mutex_);
  partitions_.erase(place);
}

std::set<Place> Commits::remade() const {
  const MutexLock lock(mutex_);
  return remade_;
}

void Commits::flush() {
  const MutexLock one(committing_);
  {
    const MutexLock lock(mutex_);
    if (!due()) return;
  }
  commit();
}

/// Asks what the broker knows, and commits what differs from it.
void Commits::commit() {
  PartitionList known;
  {
    const MutexLock lock(mutex_);
    known = new_partition_list(partitions_.size());
    for (const auto& [place, partition] : partitions_) add(*known, place);
  }
  if (rd_kafka_committed(client_, known.get(), kAnswerMs) != RD_KAFKA_RESP_ERR_NO_ERROR) return;
  const MutexLock lock(mutex_);
  look_due_ = SteadyClock::now() + kLookInterval;
  const PartitionList changed = new_partition_list(partitions_.size());
  for (const auto& entry : elements(*known)) {
    const auto found = partitions_.find({entry.topic, entry.partition});
    if (found == partitions_.end() || entry.err != RD_KAFKA_RESP_ERR_NO_ERROR) continue;
    Partition& partition = found->second;
    // What was sent before this question reached the broker before it did.
    const bool was_there = partition.committed >= 0 || partition.sent;
    if (entry.offset < 0 && was_there) remade_.insert(found->first);
    partition.committed = std::max<std::int64_t>(entry.offset, -1);
    if (partition.committed == partition.next) continue;
    add(*changed, found->first).offset = partition.next;
    partition.sent = true;
  }
  any_remade_ = !remade_.empty();
  // What does not arrive is sent again after the next look.
  if (!any_remade_ && changed->cnt > 0) rd_kafka_commit(client_, changed.get(), 1);
}

void Commits::committed(const rd_kafka_topic_partition_list_t& offsets) {
  const MutexLock lock(mutex_);
  for (const auto& entry : elements(offsets)) {
    const auto found = partitions_.find({entry.topic, entry.partition});
    if (found == partitions_.end() || entry.err != RD_KAFKA_RESP_ERR_NO_ERROR) continue;
    found->second.committed = entry.offset;
  }
}

void Commits::failed(const rd_kafka_topic_partition_list_t& offsets) {
  const MutexLock lock(mutex_);
  for (const auto& entry : elements(offsets)) {
    const auto found = partitions_.find({entry.topic, entry.partition});
    if (found != partitions_.end()) found->second.sent = false;
  }
}

}  // namespace relay::kafka
