#pragma once

#include <cstdint>
#include <deque>

#include "core/mutex.h"
#include "core/record.h"

namespace relay::outbox {

/// Counts the outbox rows that were handed out and are not settled. Any thread.
class Underway {
 public:
  /// A batch was handed out, which is not empty. A part of a claim check is no row.
  void add(const RecordBatch& batch);
  /// Everything up to there is settled.
  void settle(const Position& position);
  void clear();
  std::int64_t rows() const;

 private:
  struct Batch {
    std::int64_t id;
    std::int64_t row;
    std::int64_t rows;
  };
  mutable Mutex mutex_;
  std::deque<Batch> batches_ RELAY_GUARDED_BY(mutex_);
  std::int64_t rows_ RELAY_GUARDED_BY(mutex_) = 0;
};

}  // namespace relay::outbox
