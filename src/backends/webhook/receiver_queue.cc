#include "backends/webhook/receiver_queue.h"

#include <algorithm>

namespace relay::webhook {

RequestQueue::Room RequestQueue::room(SteadyClock::time_point now) const {
  const MutexLock lock(mutex_);
  if (closed_) return Room::closed;
  const bool under_way = !unsettled_.empty() && unsettled_.begin()->first <= last_taken_;
  if (waited_in_vain_ || (under_way && now - progress_ > bounds_.patience)) return Room::stalled;
  return unsettled_.size() < bounds_.requests && bytes_ < bounds_.bytes ? Room::free : Room::full;
}

bool RequestQueue::reserve(std::size_t bytes) {
  const MutexLock lock(mutex_);
  if (bytes > bounds_.bytes || bytes_ > bounds_.bytes - bytes) return false;
  bytes_ += bytes;
  return true;
}

void RequestQueue::give_back(std::size_t bytes) {
  const MutexLock lock(mutex_);
  give_back_locked(bytes);
}

void RequestQueue::give_back_locked(std::size_t bytes) {
  bytes_ -= std::min(bytes, bytes_);
}

std::optional<std::int64_t> RequestQueue::add(ReceivedRequest&& request, std::size_t reserved) {
  std::int64_t number = 0;
  {
    const MutexLock lock(mutex_);
    if (closed_) return std::nullopt;
    number = ++last_;
    unsettled_.emplace(number, reserved);
    waiting_.push_back(Taken{number, std::move(request)});
  }
  arrived_.notify_one();
  return number;
}

bool RequestQueue::abandon(std::int64_t number) {
  const MutexLock lock(mutex_);
  const auto found = std::lower_bound(
      waiting_.begin(), waiting_.end(), number,
      [](const Taken& taken, std::int64_t wanted) { return taken.number < wanted; });
  if (found == waiting_.end() || found->number != number) return false;
  waiting_.erase(found);
  const auto held = unsettled_.find(number);
  give_back_locked(held->second);
  unsettled_.erase(held);
  waited_in_vain_ = true;
  return true;
}

std::vector<RequestQueue::Taken> RequestQueue::take(const ReadLimits& limits, Deadline deadline,
                                                    std::stop_token stop) {
  std::vector<Taken> taken;
  const MutexLock lock(mutex_);
  waited_in_vain_ = false;
  arrived_.wait_for(mutex_, stop, deadline.left(),
                    [this]() RELAY_REQUIRES(mutex_) { return !waiting_.empty(); });
  if (stop.stop_requested()) return taken;
  if (!waiting_.empty() && unsettled_.begin()->first == waiting_.front().number) {
    progress_ = SteadyClock::now();
  }
  std::size_t bytes = 0;
  while (!waiting_.empty() && taken.size() < limits.records && bytes < limits.bytes) {
    bytes += waiting_.front().request.body.size();
    last_taken_ = waiting_.front().number;
    taken.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  return taken;
}

void RequestQueue::settle(std::int64_t number, SteadyClock::time_point now) {
  const MutexLock lock(mutex_);
  while (!unsettled_.empty() && unsettled_.begin()->first <= number) {
    give_back_locked(unsettled_.begin()->second);
    unsettled_.erase(unsettled_.begin());
    progress_ = now;
  }
}

std::int64_t RequestQueue::held() const {
  const MutexLock lock(mutex_);
  return static_cast<std::int64_t>(unsettled_.size());
}

void RequestQueue::close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  for (const auto& [number, bytes] : unsettled_) give_back_locked(bytes);
  unsettled_.clear();
  waiting_.clear();
}

void RequestQueue::open() {
  const MutexLock lock(mutex_);
  closed_ = waited_in_vain_ = false;
}

}  // namespace relay::webhook
