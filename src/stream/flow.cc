#include "stream/flow.h"

#include <algorithm>

namespace relay::stream {

void Flow::begin(std::int64_t last_n, std::int64_t backlog_events) {
  ledger_ = {};
  queue_.clear();
  full_since_.reset();
  live_wanted_ = false;
  stuck_n_ = 0;
  spooling_ = backlog_events > 0;
  last_n_ = recorded_n_ = last_n;
  deleted_n_ = 0;  // A server that was promoted may not have seen the last deletions.
  live_from_ = last_n + 1;
  backlog_events_ = backlog_events;
  // A transaction that was handed out in part comes again under another number, if at all.
  if (!spooling_) cursor_ = {last_n};
}

bool Flow::has_room() const {
  return spooling_ || (queue_.events() < limits_.events && queue_.bytes() < limits_.bytes);
}

void Flow::take(const Assembler::Event& event) {
  if (!spooling_) queue_.push(event.n, event.ordinal, event.row);
}

void Flow::end(const Assembler::End& end, Time now) {
  last_n_ = end.n;
  ledger_.received({end.n, end.xid, end.end, end.events, now});
  if (!spooling_) queue_.end_transaction();
}

void Flow::passed(postgres::Lsn end) {
  ledger_.passed(end);
}

bool Flow::must_spool(Time now) {
  if (has_room()) {
    full_since_.reset();
  } else if (!full_since_) {
    full_since_ = now;
  }
  const auto& open = ledger_.open();
  return (full_since_ && now - *full_since_ >= limits_.after) ||
         (!open.empty() &&
          (now - open.front().received >= limits_.after || ledger_.held() >= limits_.wal));
}

void Flow::switch_over(Time now, bool within) {
  if (!spooling_) {
    if (!must_spool(now)) return;
    spooling_ = true;
    live_wanted_ = false;
    stuck_n_ = handed_out_n_;
    full_since_.reset();
    queue_.clear();
  } else if (!within && ledger_.open().empty() && settled_n_ >= stuck_n_ &&
             (live_wanted_ || backlog_events_ == 0)) {
    spooling_ = false;
    live_from_ = last_n_ + 1;
  }
}

std::vector<Transaction> Flow::unrecorded() const {
  if (!spooling_) return {};
  return {ledger_.open().begin(), ledger_.open().end()};
}

void Flow::recorded(std::int64_t n) {
  for (const Transaction& transaction : ledger_.open()) {
    if (transaction.n > n) break;
    if (transaction.n > cursor_.n) {
      backlog_events_ += transaction.events;
    } else if (transaction.n == cursor_.n && !cursor_.whole()) {
      backlog_events_ += transaction.events - cursor_.ordinal;
    }
  }
  recorded_n_ = n;
  live_wanted_ = live_wanted_ && fits_queue();
  ledger_.account(n);
}

Flow::From Flow::next() const {
  const std::int64_t end = backlog_end();
  if (cursor_.n < end || (cursor_.n == end && !cursor_.whole())) return From::backlog;
  return queue_.has_events() ? From::queue : From::nothing;
}

void Flow::take(const ReadLimits& limits, RecordBatch& batch) {
  handed_out(queue_.take(limits, batch));
}

void Flow::handed_out(const Cursor& last) {
  cursor_ = last;
  handed_out_n_ = last.whole() ? last.n : last.n - 1;
}

void Flow::paged(const Cursor& last, std::int64_t events) {
  if (events == 0) return;
  handed_out(last);
  backlog_events_ -= events;
  // What is left is read while the queue fills.
  live_wanted_ = fits_queue();
}

void Flow::backlog_read(std::int64_t end) {
  // Numbers are left out where transactions were settled before they were recorded.
  if (cursor_.n < end) cursor_ = {end};
}

void Flow::settle(std::int64_t n) {
  settled_n_ = n;
  ledger_.account(n);
}

std::optional<std::int64_t> Flow::to_delete() const {
  // One that was settled while it was being recorded is deleted later.
  const std::int64_t n = std::min(settled_n_, recorded_n_);
  return n > deleted_n_ ? std::optional(n) : std::nullopt;
}

std::int64_t Flow::waiting() const {
  return backlog_events_ + static_cast<std::int64_t>(queue_.events());
}

}  // namespace relay::stream
