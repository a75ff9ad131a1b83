#include "backends/redis/ledger.h"

#include <algorithm>

namespace relay::redis {

std::int64_t Ledger::add(const std::string& entry) {
  const std::lock_guard lock(mutex_);
  if (!entries_.insert(entry).second) return 0;
  underway_.push_back({++last_record_, entry});
  return last_record_;
}

std::vector<std::string> Ledger::settled(std::int64_t record) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> found;
  for (const Underway& one : underway_) {
    if (one.record > record) break;
    found.push_back(one.entry);
  }
  return found;
}

void Ledger::forget(std::int64_t record) {
  const std::lock_guard lock(mutex_);
  const auto end =
      std::ranges::find_if(underway_, [&](const Underway& one) { return one.record > record; });
  for (auto one = underway_.begin(); one != end; ++one) entries_.erase(one->entry);
  underway_.erase(underway_.begin(), end);
}

bool Ledger::has(const std::string& entry) const {
  const std::lock_guard lock(mutex_);
  return entries_.contains(entry);
}

bool Ledger::empty() const {
  const std::lock_guard lock(mutex_);
  return entries_.empty();
}

void Ledger::clear() {
  const std::lock_guard lock(mutex_);
  underway_.clear();
  entries_.clear();
}

}  // namespace relay::redis
