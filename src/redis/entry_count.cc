#include "redis/entry_count.h"

#include <charconv>
#include <limits>

namespace relay::redis {

std::optional<GroupState> GroupState::of(const Reply& fields) {
  GroupState state;
  for (std::size_t i = 0; i + 1 < fields.elements.size(); i += 2) {
    const std::string& name = fields.elements[i].text;
    const Reply& value = fields.elements[i + 1];
    if (name == "name") state.name = value.text;
    if (name == "last-delivered-id") state.last_delivered = value.text;
    if (value.kind != Reply::Kind::integer) continue;
    if (name == "pending") state.pending = value.integer;
    if (name == "lag") state.lag = value.integer;
  }
  if (state.name.empty() || state.last_delivered.empty()) return std::nullopt;
  return state;
}

void EntryCount::begin(const std::string& entry) {
  if (entry == begin_) return;
  begin_ = last_ = entry;
  count_ = 0;
}

/// Ids are "<milliseconds>-<number>". Ranges that exclude their beginning need Redis 6.2.
std::string EntryCount::next() const {
  const auto dash = last_.find('-');
  if (dash == std::string::npos) return last_ + "-1";
  std::uint64_t number = 0;
  const char* const end = last_.data() + last_.size();
  std::from_chars(last_.data() + dash + 1, end, number);
  if (number < std::numeric_limits<std::uint64_t>::max()) {
    return last_.substr(0, dash + 1) + std::to_string(number + 1);
  }
  std::uint64_t time = 0;
  std::from_chars(last_.data(), last_.data() + dash, time);
  return std::to_string(time + 1) + "-0";
}

void EntryCount::add(const std::string& entry) {
  last_ = entry;
  ++count_;
}

}  // namespace relay::redis
