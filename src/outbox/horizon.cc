#include "outbox/horizon.h"

#include <algorithm>

namespace relay::outbox {

bool Horizon::pass(std::int64_t id) {
  if (id <= frontier_) return true;
  const bool gap = id != frontier_ + 1;
  if (gap && id - 1 > settled_at_read_) return false;
  frontier_ = id;
  return true;
}

void Horizon::jump_to(std::int64_t id) {
  frontier_ = std::max(frontier_, id);
}

void Horizon::end_read(std::int64_t until) {
  frontier_ = std::max(frontier_, std::min(settled_at_read_, until));
}

void Horizon::check(Look& look, const Names& sessions, const Names& prepared) {
  const auto gone_from = [](const Names& present) {
    return [&present](const std::string& name) { return !present.contains(name); };
  };
  std::erase_if(look.prepared, gone_from(prepared));
  const bool some_ended = std::erase_if(look.sessions, gone_from(sessions)) > 0;
  // A session that is gone may have prepared its transaction, which is still open under another
  // name. Which one is not told, so all that are prepared now are waited for. That ends: sessions
  // of a look only ever become fewer.
  if (some_ended) look.prepared.insert(prepared.begin(), prepared.end());
}

void Horizon::observe(std::int64_t sequence, std::span<const Holder> holders) {
  Names sessions;
  Names prepared;
  for (const Holder& holder : holders) {
    (holder.prepared ? prepared : sessions).insert(holder.name);
  }
  for (Look& look : looks_) check(look, sessions, prepared);
  const bool news = sequence > settled_ && (looks_.empty() || sequence > looks_.back().sequence);
  if (news) looks_.push_back({sequence, std::move(sessions), std::move(prepared)});
  close_looks();
  thin_out();
}

void Horizon::close_looks() {
  // What a later look found decided includes what earlier ones asked.
  const auto last_done =
      std::find_if(looks_.rbegin(), looks_.rend(), [](const Look& look) { return look.empty(); });
  if (last_done == looks_.rend()) return;
  settled_ = std::max(settled_, last_done->sequence);
  looks_.erase(looks_.begin(), last_done.base());
}

/// A look that is dropped costs nothing but that its gaps wait for the next later one.
void Horizon::thin_out() {
  if (looks_.size() <= kMaxLooks) return;
  std::size_t index = 0;
  std::erase_if(looks_, [&](const Look&) { return index++ % 2 == 1; });
}

bool Horizon::can_advance(std::int64_t first) const {
  if (first == 0) return settled_ > frontier_;
  return first == frontier_ + 1 || first - 1 <= settled_;
}

}  // namespace relay::outbox
