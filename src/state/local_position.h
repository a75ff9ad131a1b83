#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/deadline.h"
#include "core/error.h"
#include "core/mutex.h"
#include "core/record.h"
#include "postgres/pool.h"
#include "state/positions.h"

namespace relay::state {

/// How far a source that is not an outbox of the relay's own database is settled, kept in that
/// database. Taking it fences the owner before. Written at most every 50 ms: the same position
/// again writes what is due. A position that was not written costs a second delivery. Any thread;
/// `settle` and `flush` one at a time.
class LocalPosition {
 public:
  LocalPosition(postgres::Pool* database, std::string group, std::string pipeline,
                std::string worker)
      : database_(database),
        group_(std::move(group)),
        pipeline_(std::move(pipeline)),
        worker_(std::move(worker)) {}

  /// Is there a position? It then does not matter where a new one would begin.
  Result<bool> exists(const std::string& incarnation, std::stop_token stop);
  /// Takes ownership. `start` may only be left out of where there is a position; it is an error
  /// otherwise.
  Result<Ownership> claim(const std::string& incarnation, const Start& start, std::stop_token stop);
  /// Sets it to any place, even back.
  Result<void> rewind(const Position& position, std::stop_token stop);
  /// Sets it back to the beginning, if the operator said that what is lost is lost.
  Result<bool> restart_if_allowed(std::stop_token stop);

  Result<void> settle(const Position& position);
  Result<void> flush();
  Position settled() const;
  bool claimed() const;

 private:
  Result<void> write(const Position& position, Deadline deadline);

  postgres::Pool* const database_;
  const std::string group_;
  const std::string pipeline_;
  const std::string worker_;
  mutable Mutex mutex_;
  std::string incarnation_ RELAY_GUARDED_BY(mutex_);
  std::string token_ RELAY_GUARDED_BY(mutex_);
  Position settled_ RELAY_GUARDED_BY(mutex_);
  bool due_ RELAY_GUARDED_BY(mutex_) = false;
  std::optional<Error> fenced_ RELAY_GUARDED_BY(mutex_);
  SteadyClock::time_point written_at_ RELAY_GUARDED_BY(mutex_){};
};

}  // namespace relay::state
