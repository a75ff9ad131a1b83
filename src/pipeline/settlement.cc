#include "pipeline/settlement.h"

#include <algorithm>

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

void Settlement::record(std::span<const Outcome> outcomes) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < pending_.size(); ++i) {
    const std::size_t index = pending_[i];
    if (i < outcomes.size()) outcomes_[index] = outcomes[i];
    const Outcome::Kind kind = outcomes_[index].kind;
    const bool held = hold_rejected_ && kind == Outcome::Kind::rejected;
    if (kind == Outcome::Kind::unknown || held) pending_[kept++] = index;
  }
  pending_.resize(kept);
}

void Settlement::reject(std::size_t index, SharedError error) {
  const auto found = std::find(pending_.begin(), pending_.end(), index);
  if (found == pending_.end()) return;
  outcomes_[index] = Outcome::rejected(std::move(error));
  pending_.erase(found);
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
