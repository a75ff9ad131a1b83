#include "stream/rounds.h"

#include <algorithm>
#include <utility>

namespace relay::stream {

Rounds::Rounds(Place place, std::int64_t handed_out)
    : settled_(std::move(place)),
      behind_(settled_.seen),
      handed_out_(handed_out),
      settled_n_(handed_out) {
  if (settled_.next.empty()) return;
  begin(settled_.next);
  seq_ = settled_.seq;
}

void Rounds::begin(std::string next) {
  next_ = std::move(next);
  seq_ = -1;
  reading_ = true;
  rounds_.push_back({next_, handed_out_});
  advance();
}

std::int64_t Rounds::hand_out(std::int64_t seq) {
  seq_ = seq;
  events_.push_back({++handed_out_, seq});
  rounds_.back().last_n = handed_out_;
  return handed_out_;
}

void Rounds::end() {
  reading_ = false;
  behind_ = next_;
  rounds_.back().ended = true;
  advance();
}

void Rounds::settle(std::int64_t n) {
  settled_n_ = std::max(settled_n_, n);
  while (!events_.empty() && events_.front().n <= n) {
    settled_.seq = events_.front().seq;
    events_.pop_front();
    advance();
  }
}

/// Leaves the rounds that are settled.
void Rounds::advance() {
  while (!rounds_.empty() && rounds_.front().ended &&
         (events_.empty() || events_.front().n > rounds_.front().last_n)) {
    settled_ = {rounds_.front().next, {}, -1};
    rounds_.pop_front();
  }
  if (!rounds_.empty() && settled_.next.empty()) settled_.next = rounds_.front().next;
}

}  // namespace relay::stream
