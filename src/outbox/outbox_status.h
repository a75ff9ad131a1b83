#pragma once

#include <string>
#include <utility>

#include "connector/source.h"
#include "core/mutex.h"

namespace relay::outbox {

/// What other threads ask an outbox source for. Any thread.
class OutboxStatus {
 public:
  /// The sequence that numbers the outbox that was opened last; empty: none yet.
  std::string sequence() const {
    const MutexLock lock(mutex_);
    return sequence_;
  }
  void set_sequence(std::string name) {
    const MutexLock lock(mutex_);
    sequence_ = std::move(name);
  }

  OpenWriter writer() const {
    const MutexLock lock(mutex_);
    return writer_;
  }
  void set_writer(const OpenWriter& writer) {
    const MutexLock lock(mutex_);
    writer_ = writer;
  }

 private:
  mutable Mutex mutex_;
  std::string sequence_ RELAY_GUARDED_BY(mutex_);
  OpenWriter writer_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay::outbox
