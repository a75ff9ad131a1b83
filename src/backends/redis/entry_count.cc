#include "backends/redis/entry_count.h"

#include <fmt/core.h>

#include <limits>

#include "backends/redis/entry_id.h"

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

/// Ranges that exclude their beginning need Redis 6.2.
std::string EntryCount::next() const {
  const auto last = parse_entry_id(last_);
  if (!last) return last_ + "-1";
  if (last->number == std::numeric_limits<std::uint64_t>::max()) {
    return fmt::format("{}-0", last->time + 1);
  }
  return fmt::format("{}-{}", last->time, last->number + 1);
}

void EntryCount::add(const std::string& entry) {
  last_ = entry;
  ++count_;
}

}  // namespace relay::redis
