#include "backends/webhook/attempts.h"

namespace relay::webhook {

bool Attempts::refused(std::span<const Message> messages) {
  if (!max_) return false;
  bool all = true;
  for (const Message& message : messages) {
    if (counts_.size() >= kMost) counts_.clear();
    all = ++counts_[std::string(message.id)] >= *max_ && all;
  }
  return all;
}

void Attempts::settled(const Message& message) {
  if (counts_.empty()) return;
  if (const auto found = counts_.find(message.id); found != counts_.end()) counts_.erase(found);
}

}  // namespace relay::webhook
