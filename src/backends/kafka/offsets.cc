#include "backends/kafka/offsets.h"

#include <algorithm>

namespace relay::kafka {

std::size_t Offsets::index_of(std::string_view topic, std::int32_t partition) {
  const auto is_it = [&](const Partition& known) {
    return known.number == partition && known.topic == topic;
  };
  if (last_ < partitions_.size() && is_it(partitions_[last_])) return last_;
  const auto known = std::ranges::find_if(partitions_, is_it);
  last_ = static_cast<std::size_t>(known - partitions_.begin());
  if (known == partitions_.end()) partitions_.push_back({std::string(topic), partition});
  return last_;
}

std::int64_t Offsets::add(std::string_view topic, std::int32_t partition, std::int64_t offset) {
  const MutexLock lock(mutex_);
  const std::size_t index = index_of(topic, partition);
  Partition& place = partitions_[index];
  if (place.unsettled++ == 0) place.first_unsettled = offset;
  return unsettled_.add({index, place.generation, offset});
}

std::vector<Offsets::Next> Offsets::settle(std::int64_t number) {
  const MutexLock lock(mutex_);
  std::vector<std::int64_t> next(partitions_.size(), -1);
  while (const auto entry = unsettled_.take(number)) {
    Partition& place = partitions_[entry->partition];
    if (entry->generation != place.generation) continue;
    next[entry->partition] = place.first_unsettled = entry->offset + 1;
    --place.unsettled;
  }
  std::vector<Next> found;
  for (std::size_t i = 0; i < next.size(); ++i) {
    if (next[i] >= 0) found.push_back({partitions_[i].topic, partitions_[i].number, next[i]});
  }
  return found;
}

void Offsets::give_up(std::string_view topic, std::int32_t partition) {
  const MutexLock lock(mutex_);
  partitions_[index_of(topic, partition)].give_up();
}

void Offsets::give_up_all() {
  const MutexLock lock(mutex_);
  for (Partition& partition : partitions_) partition.give_up();
}

std::optional<std::int64_t> Offsets::first_unsettled(std::string_view topic,
                                                     std::int32_t partition) {
  const MutexLock lock(mutex_);
  const Partition& place = partitions_[index_of(topic, partition)];
  return place.unsettled > 0 ? std::optional(place.first_unsettled) : std::nullopt;
}

std::size_t Offsets::unsettled() const {
  const MutexLock lock(mutex_);
  return unsettled_.size();
}

}  // namespace relay::kafka
