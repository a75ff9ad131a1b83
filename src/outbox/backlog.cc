#include "outbox/backlog.h"

#include <algorithm>

namespace relay::outbox {

namespace {

constexpr std::chrono::seconds kCountEvery{1};
/// Counting a long backlog takes at most this part of the time.
constexpr int kCountingShare = 200;

}  // namespace

void Backlog::counted(std::optional<std::int64_t> rows, Time begun, Time ended) {
  if (rows) rows_ = *rows;
  count_at_ =
      begun + std::max<SteadyClock::duration>(kCountEvery, (ended - begun) * kCountingShare);
}

void Backlog::handed_out(std::size_t records) {
  rows_ = std::max<std::int64_t>(0, rows_ - static_cast<std::int64_t>(records));
}

}  // namespace relay::outbox
