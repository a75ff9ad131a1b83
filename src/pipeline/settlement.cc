#include "pipeline/settlement.h"

namespace relay {

Settlement::Settlement(std::span<const Message> messages, std::size_t records, bool hold_rejected)
    : hold_rejected_(hold_rejected) {
  extend(messages, records);
}

void Settlement::extend(std::span<const Message> messages, std::size_t records) {
  messages_ = messages;
  records_ = records;
  const std::size_t known = outcomes_.size();
  outcomes_.resize(messages.size(), Outcome::unknown(nullptr));
  pending_.reserve(pending_.size() + messages.size() - known);
  for (std::size_t i = known; i < messages.size(); ++i) {
    if (messages[i].refused && !hold_rejected_) {
      outcomes_[i] = Outcome::rejected(messages[i].refused);
    } else {
      pending_.push_back(i);
    }
  }
}

void Settlement::record(std::span<const std::size_t> sent, std::span<const Outcome> outcomes) {
  auto kept = pending_.begin();
  auto next = kept;
  for (std::size_t i = 0; i < outcomes.size(); ++next) {
    const std::size_t index = *next;
    if (index != sent[i]) {
      *kept++ = index;
      continue;
    }
    const Outcome& outcome = outcomes[i++];
    outcomes_[index] = outcome;
    const bool held = hold_rejected_ && outcome.kind == Outcome::Kind::rejected;
    if (outcome.kind == Outcome::Kind::unknown || held) *kept++ = index;
  }
  pending_.erase(kept, next);
}

Settlement::Progress Settlement::progress() {
  Progress progress;
  progress.records = pending_.empty() ? records_ : messages_[pending_.front()].record;
  while (passed_ < messages_.size() && messages_[passed_].record < progress.records) {
    if (outcomes_[passed_].kind == Outcome::Kind::rejected) progress.rejected.push_back(passed_);
    ++passed_;
  }
  return progress;
}

}  // namespace relay
