#include "backends/nats/outcomes.h"

#include <utility>

namespace relay::nats {

void Outcomes::begin(std::size_t messages, bool list_finished) {
  const MutexLock lock(mutex_);
  in_flight_.clear();
  in_flight_.reserve(messages);
  bytes_ = 0;
  outcomes_.assign(messages, std::nullopt);
  finished_.clear();
  list_finished_ = list_finished;
  sent_.clear();
  sent_.reserve(messages);
  oldest_ = 0;
  if (!broken_) failure_ = nullptr;
}

std::vector<std::optional<Outcome>> Outcomes::end() {
  const MutexLock lock(mutex_);
  in_flight_.clear();
  bytes_ = 0;
  return std::exchange(outcomes_, {});
}

void Outcomes::sending(std::span<const Sending> messages) {
  const auto now = SteadyClock::now();
  const MutexLock lock(mutex_);
  for (const auto& [handle, message, bytes] : messages) {
    in_flight_.emplace(handle, Entry{message, bytes});
    bytes_ += bytes;
    sent_.push_back({message, now});
  }
}

void Outcomes::not_sent(std::span<const Sending> messages) {
  const MutexLock lock(mutex_);
  for (const auto& [handle, message, bytes] : messages) {
    if (in_flight_.erase(handle) == 0) continue;
    bytes_ -= bytes;
    sent_.pop_back();
  }
}

void Outcomes::settle(std::size_t message, Outcome outcome) {
  const MutexLock lock(mutex_);
  close_entry(message, std::move(outcome));
}

void Outcomes::told(Handle handle, Outcome outcome, std::string_view stream) {
  bool wake = false;
  {
    const MutexLock lock(mutex_);
    const auto entry = in_flight_.find(handle);
    if (entry == in_flight_.end()) return;
    const auto [message, bytes] = entry->second;
    in_flight_.erase(entry);
    bytes_ -= bytes;
    if (stream_.empty()) stream_ = stream;
    wake = outcome.kind == Outcome::Kind::unknown || in_flight_.size() <= wake_at_;
    close_entry(message, std::move(outcome));
  }
  if (wake) changed_.notify_one();
}

void Outcomes::close_entry(std::size_t message, Outcome outcome) {
  if (outcome.kind == Outcome::Kind::unknown) {
    note(outcome.error);
  } else if (list_finished_) {
    finished_.push_back(message);
  }
  outcomes_[message] = std::move(outcome);
}

void Outcomes::note(SharedError error) {
  if (!failure_) failure_ = std::move(error);
}

void Outcomes::broke(SharedError error) {
  {
    const MutexLock lock(mutex_);
    note(std::move(error));
    broken_ = true;
  }
  changed_.notify_one();
}

void Outcomes::refused(SharedError error) {
  {
    const MutexLock lock(mutex_);
    if (in_flight_.empty()) return;
    note(std::move(error));
    broken_ = true;
  }
  changed_.notify_one();
}

Outcomes::State Outcomes::state_locked() {
  while (oldest_ < sent_.size() && outcomes_[sent_[oldest_].message]) ++oldest_;
  State state;
  state.load.messages = in_flight_.size();
  state.load.bytes = bytes_;
  if (oldest_ < sent_.size()) state.load.waiting_since = sent_[oldest_].at;
  state.failure = failure_;
  state.broken = broken_;
  return state;
}

Outcomes::State Outcomes::state() {
  const MutexLock lock(mutex_);
  return state_locked();
}

Outcomes::State Outcomes::wait(std::size_t wanted, SteadyClock::time_point until,
                               std::stop_token stop) {
  const MutexLock lock(mutex_);
  wake_at_ = wanted;
  const auto had_failure = failure_;
  changed_.wait_until(mutex_, std::move(stop), until, [&]() RELAY_REQUIRES(mutex_) {
    return in_flight_.size() <= wanted || broken_ || failure_ != had_failure;
  });
  wake_at_ = 0;
  return state_locked();
}

std::vector<std::size_t> Outcomes::take_finished() {
  const MutexLock lock(mutex_);
  return std::exchange(finished_, {});
}

std::string Outcomes::stream() {
  const MutexLock lock(mutex_);
  return stream_;
}

}  // namespace relay::nats
