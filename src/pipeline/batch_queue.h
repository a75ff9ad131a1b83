#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "core/message.h"

namespace relay {

/// The batches between reader and sender, bounded in number and bytes, and the count of records
/// that are read and not settled. Half of `max_bytes` waits here, the other half is with the sink,
/// so a slow sink makes the reader wait. No thread: the owner synchronises it.
class BatchQueue {
 public:
  static constexpr std::size_t kBatches = 16;
  /// So many messages are delivered together where a backlog waits: enough that the round trip at
  /// the end of a delivery costs little.
  static constexpr std::size_t kMessagesTogether = 16384;
  /// The most records in flight while the sink takes nothing. Brokers count how often they deliver
  /// a message, and a stop gives back what was read: that must be little behind a stuck sink.
  static constexpr std::size_t kProbeRecords = 100;

  explicit BatchQueue(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  /// Whether there is room for one more batch. An empty queue takes a batch of any size.
  bool has_room() const {
    return batches_.empty() || (batches_.size() < kBatches && bytes_ < max_bytes_ / 2);
  }
  bool empty() const { return batches_.empty(); }

  /// Whether more may be read. While the sink accepts nothing, only one small batch waits for it,
  /// which may arrive in parts.
  bool may_read() const {
    if (sink_takes_) return has_room();
    return empty() && in_flight_ < kProbeRecords;
  }
  /// The most records to read next, of `wanted`; at least one.
  std::size_t most_records(std::size_t wanted) const {
    if (sink_takes_) return wanted;
    return std::min(wanted, kProbeRecords - std::min(in_flight_, kProbeRecords - 1));
  }
  /// Records whether the sink accepts messages. Returns true if that changed.
  bool set_sink_takes(bool takes) { return std::exchange(sink_takes_, takes) != takes; }

  void push(MessageBatch batch) {
    in_flight_ += batch.records.records.size();
    bytes_ += batch.bytes;
    batches_.push_back(std::move(batch));
  }
  /// The next batch, and what waits behind it as one with it. A replay stays alone.
  std::optional<MessageBatch> pop() {
    if (batches_.empty()) return std::nullopt;
    MessageBatch batch = take();
    while (append_to(batch)) {
    }
    return batch;
  }
  /// Appends the next batch to one that was popped before, if the two may be delivered as one.
  bool append_to(MessageBatch& batch) {
    const bool together = fits(batch);
    if (together) batch.append(take());
    return together;
  }
  /// The next batch may be delivered as one with this one.
  bool fits(const MessageBatch& batch) const {
    return !batch.records.is_replay() && !batches_.empty() &&
           !batches_.front().records.is_replay() &&
           batch.messages.size() + batches_.front().messages.size() <= kMessagesTogether &&
           batch.bytes + batches_.front().bytes <= max_bytes_;
  }
  /// `append_to` for a batch of which the sink takes nothing: it may need other messages to tell
  /// whether these are at fault. With `others_go` the sink takes all but some of it.
  bool append_to_stuck(MessageBatch& batch, bool others_go = false) {
    return (others_go || !sink_takes_) && append_to(batch);
  }

  /// So many records that were popped are settled, or given up.
  void leave(std::size_t records) { in_flight_ -= std::min(in_flight_, records); }
  std::size_t in_flight() const { return in_flight_; }

  void clear() {
    batches_.clear();
    bytes_ = 0;
    in_flight_ = 0;
  }

 private:
  MessageBatch take() {
    MessageBatch batch = std::move(batches_.front());
    batches_.pop_front();
    bytes_ -= batch.bytes;
    return batch;
  }

  std::size_t max_bytes_;
  std::size_t bytes_ = 0;
  std::size_t in_flight_ = 0;
  bool sink_takes_ = false;
  std::deque<MessageBatch> batches_;
};

}  // namespace relay
