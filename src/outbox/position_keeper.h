#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>

#include "core/dead_letter.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/mutex.h"
#include "core/record.h"
#include "outbox/outbox_info.h"
#include "outbox/outbox_position.h"
#include "postgres/pool.h"

namespace relay::outbox {

/// Writes how far a pipeline is settled: at once with dead letters, in their transaction; otherwise
/// at most every 50 ms. Any thread; `settle` and `flush` one at a time.
class PositionKeeper {
 public:
  /// Without a pool nothing but `flush` may be called.
  PositionKeeper(postgres::Pool* pool, state::PositionKey key)
      : pool_(pool), key_(std::move(key)) {}

  /// From now on positions in this outbox are written, under this ownership; of an adopted one
  /// with `history` (PositionFacts).
  void begin(OutboxInfo outbox, state::Ownership ownership, std::string history);
  /// Positions from this id on are written with this history.
  void note_history(std::int64_t from, const std::string& history);

  /// The same position again, without dead letters, writes what is due. Fenced: another instance
  /// owns the pipeline, or the outbox is another one; that stays so until `begin`.
  Result<void> settle(const Position& position, std::span<const DeadLetter> letters);
  /// Moves the position over ids without rows. To be called only while nothing is under way; any
  /// thread, beside the others.
  Result<void> pass(std::int64_t id);
  /// Writes what is due, within two seconds: for a source that is about to close.
  Result<void> flush();

 private:
  std::string history_at(std::int64_t id) RELAY_REQUIRES(mutex_);
  Result<void> write(const Position& position, std::span<const DeadLetter> letters,
                     Deadline deadline);

  postgres::Pool* const pool_;
  const state::PositionKey key_;
  Mutex mutex_;
  OutboxInfo outbox_ RELAY_GUARDED_BY(mutex_);
  std::string token_ RELAY_GUARDED_BY(mutex_);
  std::deque<std::pair<std::int64_t, std::string>> histories_ RELAY_GUARDED_BY(mutex_);
  Position settled_ RELAY_GUARDED_BY(mutex_);
  bool due_ RELAY_GUARDED_BY(mutex_) = false;
  std::optional<Error> fenced_ RELAY_GUARDED_BY(mutex_);
  SteadyClock::time_point written_at_ RELAY_GUARDED_BY(mutex_){};
};

}  // namespace relay::outbox
