#pragma once

#include <cstdint>
#include <stop_token>

#include "core/deadline.h"
#include "core/mutex.h"

namespace relay {

/// Where a reader waits for its outbox's sequence to move. The sweep announces what it saw; any
/// number of readers wait. Any thread.
class Wake {
 public:
  /// The sequence stands at `last_value` (it moves before the row is visible).
  void announce(std::int64_t last_value);
  /// Lets waiting readers look at once, whatever the sequence says (a NOTIFY, a changed setting).
  void poke();

  /// Waits until the sequence is beyond `known`, a poke, the deadline, or a stop. Returns the
  /// newest value announced (0: none yet).
  std::int64_t wait_beyond(std::int64_t known, Deadline deadline, std::stop_token stop);
  /// The same, for a reader that must miss no poke between two waits: `pokes` is what this gave the
  /// last time (`pokes()` at first), and is brought up to date.
  std::int64_t wait_beyond(std::int64_t known, std::uint64_t& pokes, Deadline deadline,
                           std::stop_token stop);
  /// A reader waits, or has waited since this was asked last.
  bool was_awaited();
  std::int64_t last_value() const;
  std::uint64_t pokes() const;

 private:
  mutable Mutex mutex_;
  Condition changed_;
  std::int64_t last_value_ RELAY_GUARDED_BY(mutex_) = 0;
  std::uint64_t pokes_ RELAY_GUARDED_BY(mutex_) = 0;
  int waiting_ RELAY_GUARDED_BY(mutex_) = 0;
  bool awaited_ RELAY_GUARDED_BY(mutex_) = false;
};

}  // namespace relay
