#include "backends/sqs/receipts.h"

#include <utility>

namespace relay::sqs {

std::int64_t Receipts::add(const std::string& message_id, std::string receipt,
                           SteadyClock::time_point hidden_until) {
  const MutexLock lock(mutex_);
  const auto [known, is_new] = numbers_.try_emplace(message_id, last_ + 1);
  if (!is_new) {
    Message& message = messages_.at(known->second);
    message.receipt = std::move(receipt);
    message.hidden_until = hidden_until;
    return 0;
  }
  messages_.emplace(++last_, Message{message_id, std::move(receipt), hidden_until});
  return last_;
}

std::vector<Receipts::Underway> Receipts::settled(std::int64_t number) const {
  const MutexLock lock(mutex_);
  std::vector<Underway> found;
  for (const auto& [known, message] : messages_) {
    if (known > number) break;
    found.push_back({known, message.receipt});
  }
  return found;
}

std::vector<Receipts::Underway> Receipts::due(SteadyClock::time_point until,
                                              SteadyClock::time_point then) {
  const MutexLock lock(mutex_);
  std::vector<Underway> found;
  for (auto& [number, message] : messages_) {
    if (message.hidden_until > until) continue;
    message.hidden_until = then;
    found.push_back({number, message.receipt});
  }
  return found;
}

void Receipts::not_hidden(std::int64_t number) {
  const MutexLock lock(mutex_);
  if (const auto found = messages_.find(number); found != messages_.end()) {
    found->second.hidden_until = {};
  }
}

void Receipts::forget(std::int64_t number) {
  const MutexLock lock(mutex_);
  const auto found = messages_.find(number);
  if (found == messages_.end()) return;
  numbers_.erase(found->second.id);
  messages_.erase(found);
}

std::vector<Receipts::Underway> Receipts::take_all() {
  const MutexLock lock(mutex_);
  std::vector<Underway> found;
  for (const auto& [number, message] : messages_) found.push_back({number, message.receipt});
  messages_.clear();
  numbers_.clear();
  return found;
}

}  // namespace relay::sqs
