#include "connector/key_gate.h"

#include <string_view>
#include <unordered_map>

namespace relay {

KeyGate::KeyGate(std::span<const Message> messages, bool single)
    : single_(single), count_(messages.size()) {
  if (!single) return;
  following_.assign(count_, kNone);
  std::unordered_map<std::string_view, std::size_t> last_of_key;
  for (std::size_t i = 0; i < count_; ++i) {
    const auto [last, is_first] = last_of_key.try_emplace(messages[i].key, i);
    if (is_first) {
      ready_.push_back(i);
    } else {
      following_[last->second] = i;
      last->second = i;
    }
  }
}

std::ptrdiff_t KeyGate::next() {
  if (!single_) return given_ < count_ ? static_cast<std::ptrdiff_t>(given_++) : -1;
  if (ready_.empty()) return -1;
  const std::size_t message = ready_.front();
  ready_.pop_front();
  return static_cast<std::ptrdiff_t>(message);
}

void KeyGate::finished(std::size_t message) {
  if (single_ && following_[message] != kNone) ready_.push_back(following_[message]);
}

}  // namespace relay
