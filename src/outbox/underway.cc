#include "outbox/underway.h"

#include <algorithm>

namespace relay::outbox {

void Underway::add(const RecordBatch& batch) {
  const auto whole = std::count_if(batch.records.begin(), batch.records.end(),
                                   [](const Record& record) { return record.row == 0; });
  const Record& last = batch.records.back();
  const MutexLock lock(mutex_);
  batches_.push_back({last.id, last.row, whole});
  rows_ += whole;
}

void Underway::settle(const Position& position) {
  const MutexLock lock(mutex_);
  while (!batches_.empty() &&
         !(position < Position{batches_.front().id, batches_.front().row, {}})) {
    rows_ -= batches_.front().rows;
    batches_.pop_front();
  }
}

void Underway::clear() {
  const MutexLock lock(mutex_);
  batches_.clear();
  rows_ = 0;
}

std::int64_t Underway::rows() const {
  const MutexLock lock(mutex_);
  return rows_;
}

}  // namespace relay::outbox
