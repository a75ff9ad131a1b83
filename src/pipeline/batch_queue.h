#pragma once

#include <cstddef>
#include <deque>
#include <optional>

#include "core/message.h"

namespace relay {

/// The batches between reader and sender, bounded in number and bytes, so that back-pressure is
/// structural: half of `max_bytes` waits here, the other half is with the sink. Not synchronised:
/// the pipeline's mutex guards it.
class BatchQueue {
 public:
  static constexpr std::size_t kBatches = 16;
  /// So many messages are delivered together where a backlog waits: enough that the round trip at
  /// the end of a delivery costs little.
  static constexpr std::size_t kMessagesTogether = 16384;

  explicit BatchQueue(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  /// Room for one more batch? A batch larger than the bound fits an empty queue.
  bool has_room() const {
    return batches_.empty() || (batches_.size() < kBatches && bytes_ < max_bytes_ / 2);
  }
  bool empty() const { return batches_.empty(); }

  void push(MessageBatch batch) {
    bytes_ += batch.bytes;
    batches_.push_back(std::move(batch));
  }
  /// The next batch, and what waits behind it as one with it. A replay stays alone, and so does
  /// what another shape belongs to: messages point into theirs.
  std::optional<MessageBatch> pop() {
    if (batches_.empty()) return std::nullopt;
    MessageBatch batch = take();
    while (append_to(batch)) {
    }
    return batch;
  }
  /// Puts the next batch behind one that was taken before, where they may be one. False: not done.
  bool append_to(MessageBatch& batch) {
    const bool together =
        !batch.records.is_replay() && !batches_.empty() && !batches_.front().records.is_replay() &&
        batches_.front().records.shape == batch.records.shape &&
        batch.messages.size() + batches_.front().messages.size() <= kMessagesTogether &&
        batch.bytes + batches_.front().bytes <= max_bytes_;
    if (together) batch.append(take());
    return together;
  }
  void clear() {
    batches_.clear();
    bytes_ = 0;
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
  std::deque<MessageBatch> batches_;
};

}  // namespace relay
