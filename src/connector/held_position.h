#pragma once

#include <optional>
#include <string>
#include <utility>

#include "core/mutex.h"

namespace relay {

/// Which position in the relay's own database a pipeline owns. The source says it when it takes
/// ownership. A sink that writes into the same database asks with it, in the transaction that
/// writes, whether the pipeline is still the owner. Any thread.
class HeldPosition {
 public:
  struct Ownership {
    std::string group;        ///< under which the position is kept
    std::string incarnation;  ///< of the outbox
    std::string token;        ///< another owner writes another one
  };

  void set(Ownership ownership) {
    const MutexLock lock(mutex_);
    ownership_ = std::move(ownership);
  }
  /// Nothing before the source has been opened.
  std::optional<Ownership> get() const {
    const MutexLock lock(mutex_);
    return ownership_;
  }

 private:
  mutable Mutex mutex_;
  std::optional<Ownership> ownership_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay
