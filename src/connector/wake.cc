#include "connector/wake.h"

#include <utility>

namespace relay {

void Wake::announce(std::int64_t last_value) {
  {
    const MutexLock lock(mutex_);
    if (last_value == last_value_) return;
    last_value_ = last_value;
  }
  changed_.notify_all();
}

void Wake::poke() {
  {
    const MutexLock lock(mutex_);
    ++pokes_;
  }
  changed_.notify_all();
}

std::int64_t Wake::wait_beyond(std::int64_t known, Deadline deadline, std::stop_token stop) {
  std::uint64_t pokes = this->pokes();
  return wait_beyond(known, pokes, deadline, std::move(stop));
}

std::int64_t Wake::wait_beyond(std::int64_t known, std::uint64_t& pokes, Deadline deadline,
                               std::stop_token stop) {
  const MutexLock lock(mutex_);
  ++waiting_;
  awaited_ = true;
  changed_.wait_until(mutex_, stop, deadline.at(), [&]() RELAY_REQUIRES(mutex_) {
    return last_value_ > known || pokes_ != pokes;
  });
  --waiting_;
  pokes = pokes_;
  return last_value_;
}

bool Wake::was_awaited() {
  const MutexLock lock(mutex_);
  return std::exchange(awaited_, waiting_ > 0);
}

std::int64_t Wake::last_value() const {
  const MutexLock lock(mutex_);
  return last_value_;
}

std::uint64_t Wake::pokes() const {
  const MutexLock lock(mutex_);
  return pokes_;
}

}  // namespace relay
