#include "outbox/snapshot_progress.h"

namespace relay::outbox {

const std::string SnapshotProgress::kNoKey;

void SnapshotProgress::take_page(const Page& page) {
  const bool has_limit = !until().empty();
  now_.rows += page.rows;
  if (page.is_last && has_limit) {
    now_.after = now_.ahead;
    return;
  }
  now_.done = page.is_last;
  if (page.last_key.empty()) return;
  now_.after = page.last_key;
  if (!has_limit) now_.ahead = page.last_key;
}

std::int64_t SnapshotProgress::hand_out() {
  handed_out_.emplace_back(++steps_, now_);
  return steps_;
}

std::optional<SnapshotState> SnapshotProgress::settled(std::int64_t step) const {
  std::optional<SnapshotState> last;
  for (const auto& [number, state] : handed_out_) {
    if (number > step) break;
    last = state;
  }
  return last;
}

void SnapshotProgress::stored(std::int64_t step) {
  while (!handed_out_.empty() && handed_out_.front().first <= step) handed_out_.pop_front();
}

}  // namespace relay::outbox
