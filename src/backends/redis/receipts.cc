#include "backends/redis/receipts.h"

#include <cstddef>

namespace relay::redis {

std::int64_t Receipts::add(const std::string& entry) {
  const MutexLock lock(mutex_);
  return entries_.insert(entry).second ? unsettled_.add(entry) : 0;
}

std::vector<std::string> Receipts::settled(std::int64_t record) const {
  const MutexLock lock(mutex_);
  const auto end = static_cast<std::ptrdiff_t>(unsettled_.count_up_to(record));
  return {unsettled_.begin(), unsettled_.begin() + end};
}

void Receipts::forget(std::int64_t record) {
  const MutexLock lock(mutex_);
  while (const auto entry = unsettled_.take(record)) entries_.erase(*entry);
}

bool Receipts::has(const std::string& entry) const {
  const MutexLock lock(mutex_);
  return entries_.contains(entry);
}

bool Receipts::empty() const {
  const MutexLock lock(mutex_);
  return entries_.empty();
}

void Receipts::clear() {
  const MutexLock lock(mutex_);
  unsettled_.forget();
  entries_.clear();
}

}  // namespace relay::redis
