#include "outbox/position_keeper.h"

#include <utility>

#include "state/dead_letters.h"

namespace relay::outbox {

namespace {

constexpr std::chrono::milliseconds kWriteEvery{50};
constexpr std::chrono::seconds kTimeout{10};
constexpr std::chrono::seconds kFlushTimeout{2};

/// A dead letter and the position that passes it commit together, durably. After an error the
/// transaction is left open, and the pool closes the session.
Result<void> write_together(postgres::Connection& connection, const OutboxInfo& outbox,
                            const state::PositionKey& key, const std::string& token,
                            const Position& position, const std::string& history,
                            std::span<const DeadLetter> letters, Deadline deadline) {
  auto done = connection.script("begin; set local synchronous_commit to on", deadline, {});
  if (!done) return done;
  done = state::store_dead_letters(connection, state::relay_dead_letters(), key.group, key.pipeline,
                                   letters, deadline, {});
  if (!done) return done;
  done = commit_position(connection, outbox, key, token, position, history, deadline, {});
  if (!done) return done;
  return connection.script("commit", deadline, {});
}

}  // namespace

void PositionKeeper::begin(OutboxInfo outbox, state::Ownership ownership, std::string history) {
  const MutexLock lock(mutex_);
  outbox_ = std::move(outbox);
  token_ = std::move(ownership.token);
  settled_ = std::move(ownership.position);
  histories_.clear();
  histories_.emplace_back(0, std::move(history));
  due_ = false;
  fenced_.reset();
}

void PositionKeeper::note_history(std::int64_t from, const std::string& history) {
  const MutexLock lock(mutex_);
  if (histories_.back().second != history) histories_.emplace_back(from, history);
}

/// Positions only move forward: older histories are forgotten.
std::string PositionKeeper::history_at(std::int64_t id) {
  while (histories_.size() > 1 && histories_[1].first <= id) histories_.pop_front();
  return histories_.front().second;
}

Result<void> PositionKeeper::settle(const Position& position, std::span<const DeadLetter> letters) {
  {
    const MutexLock lock(mutex_);
    if (fenced_) return fail(*fenced_);
    const bool again = position == settled_;
    if (!again) due_ = true;
    settled_ = position;
    const bool wait = !again && SteadyClock::now() - written_at_ < kWriteEvery;
    if (letters.empty() && (wait || !due_)) return {};
  }
  return write(position, letters, Deadline::after(kTimeout));
}

Result<void> PositionKeeper::pass(std::int64_t id) {
  return write({id, 0, {}}, {}, Deadline::after(kTimeout));
}

Result<void> PositionKeeper::flush() {
  Position position;
  {
    const MutexLock lock(mutex_);
    if (!due_ || fenced_) return {};
    position = settled_;
  }
  return write(position, {}, Deadline::after(kFlushTimeout));
}

Result<void> PositionKeeper::write(const Position& position, std::span<const DeadLetter> letters,
                                   Deadline deadline) {
  OutboxInfo outbox;
  std::string token;
  std::string history;
  {
    const MutexLock lock(mutex_);
    outbox = outbox_;
    token = token_;
    history = history_at(position.id);
  }
  // Without a mark, code of an adopted table's owner runs.
  const auto code = position.mark.empty() ? outbox.code() : postgres::Code::ours;
  auto lease = pool_->borrow(deadline, {}, code);
  if (!lease) return fail(lease.error());
  auto written =
      letters.empty()
          ? commit_position(**lease, outbox, key_, token, position, history, deadline, {})
          : write_together(**lease, outbox, key_, token, position, history, letters, deadline);
  const MutexLock lock(mutex_);
  if (written) {
    due_ = false;
    written_at_ = SteadyClock::now();
  } else if (written.error().error_class == ErrorClass::fenced) {
    fenced_ = written.error();
  }
  return written;
}

}  // namespace relay::outbox
