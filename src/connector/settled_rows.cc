#include "connector/settled_rows.h"

#include <algorithm>
#include <functional>

namespace relay {

namespace {

/// `rows` by rising id.
bool holds(std::span<const SettledRows::Row> rows, const SettledRows::Row& row) {
  const auto found = std::ranges::lower_bound(rows, row.id, {}, &SettledRows::Row::id);
  return found != rows.end() && found->id == row.id && found->tag == row.tag;
}

}  // namespace

std::uint64_t SettledRows::tag_of(std::string_view pgt_id) {
  return std::hash<std::string_view>()(pgt_id);
}

void SettledRows::begin(const std::string& incarnation) {
  const MutexLock lock(mutex_);
  read_.clear();
  if (incarnation == incarnation_) return;
  incarnation_ = incarnation;
  server_.clear();
  settled_.clear();
  forgot_some_ = false;
}

void SettledRows::read(std::span<const Record> records) {
  const MutexLock lock(mutex_);
  for (const Record& record : records) {
    // A part of a claim check settles no row.
    if (record.row == 0 && !record.mark.empty()) {
      read_.push_back({record.id, tag_of(record.mark)});
    }
  }
}

void SettledRows::settle(std::int64_t id) {
  const MutexLock lock(mutex_);
  while (!read_.empty() && read_.front().id <= id) {
    // What is settled once more, behind an older position, is one row.
    while (!settled_.empty() && settled_.back().id >= read_.front().id) settled_.pop_back();
    settled_.push_back(read_.front());
    read_.pop_front();
  }
  while (settled_.size() > kKept) {
    settled_.pop_front();
    forgot_some_ = true;
  }
}

bool SettledRows::empty() const {
  const MutexLock lock(mutex_);
  return settled_.empty();
}

SettledRows::Memory SettledRows::memory() const {
  const MutexLock lock(mutex_);
  return {incarnation_, server_, {settled_.begin(), settled_.end()}};
}

void SettledRows::compare(const Memory& looked_for, const std::string& server,
                          std::span<const Row> there, std::int64_t purged_below,
                          const std::string& outbox) {
  std::vector<Row> gone;
  for (const Row& row : looked_for.rows) {
    if (row.id > purged_below && !holds(there, row)) gone.push_back(row);
  }
  const MutexLock lock(mutex_);
  if (incarnation_ != looked_for.incarnation) return;
  server_ = server;
  if (gone.empty()) return;
  if (!loss_) loss_ = Loss{outbox, 0, false, gone.front().id, gone.back().id, {}};
  const bool all = gone.size() == looked_for.rows.size();
  loss_->rows += static_cast<std::int64_t>(gone.size());
  loss_->at_least = loss_->at_least || (all && forgot_some_);
  loss_->first = std::min(loss_->first, gone.front().id);
  loss_->last = std::max(loss_->last, gone.back().id);
  loss_->at = std::chrono::system_clock::now();
  // Each is counted once. Rows that were settled in the meantime were not looked for.
  std::erase_if(settled_, [&](const Row& row) { return holds(gone, row); });
}

void SettledRows::forget() {
  const MutexLock lock(mutex_);
  read_.clear();
  settled_.clear();
}

std::optional<SettledRows::Loss> SettledRows::loss() const {
  const MutexLock lock(mutex_);
  return loss_;
}

void SettledRows::acknowledge() {
  const MutexLock lock(mutex_);
  loss_.reset();
}

}  // namespace relay
