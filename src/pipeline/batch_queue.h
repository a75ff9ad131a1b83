#pragma once

#include <cstddef>
#include <deque>
#include <optional>

#include "core/message.h"

namespace relay {

/// The batches between reader and sender, bounded in number and bytes, so that back-pressure is
/// structural. Not synchronised: the pipeline's mutex guards it.
class BatchQueue {
 public:
  static constexpr std::size_t kBatches = 3;

  explicit BatchQueue(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  /// Room for one more batch? A batch larger than the bound fits an empty queue.
  bool has_room() const {
    return batches_.empty() || (batches_.size() < kBatches && bytes_ < max_bytes_);
  }
  bool empty() const { return batches_.empty(); }

  void push(MessageBatch batch) {
    bytes_ += batch.bytes;
    batches_.push_back(std::move(batch));
  }
  std::optional<MessageBatch> pop() {
    if (batches_.empty()) return std::nullopt;
    MessageBatch batch = std::move(batches_.front());
    batches_.pop_front();
    bytes_ -= batch.bytes;
    return batch;
  }
  void clear() {
    batches_.clear();
    bytes_ = 0;
  }

 private:
  std::size_t max_bytes_;
  std::size_t bytes_ = 0;
  std::deque<MessageBatch> batches_;
};

}  // namespace relay
