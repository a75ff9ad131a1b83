#include "backends/rabbitmq/confirms.h"

#include <algorithm>

namespace relay::rabbitmq {

void Confirms::published(std::size_t message) {
  messages_.push_back(message);
  ++in_flight_;
}

std::vector<std::size_t> Confirms::confirmed(std::uint64_t tag, bool multiple) {
  std::vector<std::size_t> found;
  const std::uint64_t end = first_tag_ + messages_.size();
  if (multiple && tag == 0) tag = end - 1;
  if (tag < first_tag_ || tag >= end) return found;
  const auto last = static_cast<std::size_t>(tag - first_tag_);
  for (std::size_t i = multiple ? 0 : last; i <= last; ++i) {
    if (messages_[i] == kDone) continue;
    found.push_back(messages_[i]);
    messages_[i] = kDone;
  }
  in_flight_ -= found.size();
  forget_done();
  return found;
}

void Confirms::forget_done() {
  while (!messages_.empty() && messages_.front() == kDone) {
    messages_.pop_front();
    ++first_tag_;
  }
}

std::vector<std::size_t> Confirms::open() const {
  std::vector<std::size_t> found;
  std::ranges::copy_if(messages_, std::back_inserter(found),
                       [](std::size_t message) { return message != kDone; });
  return found;
}

}  // namespace relay::rabbitmq
