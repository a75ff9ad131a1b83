#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "connector/source.h"
#include "core/deadline.h"
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

  /// A step that reads begins, or ends.
  void set_reading(bool reading) {
    const MutexLock lock(mutex_);
    const auto now = SteadyClock::now();
    if (reading_since_ && now - *reading_since_ > kSlow) slow_ended_ = now;
    reading_since_ = reading ? std::optional(now) : std::nullopt;
  }
  /// A step takes long, or did of late.
  bool reads_slowly() const {
    const MutexLock lock(mutex_);
    const auto now = SteadyClock::now();
    return (slow_ended_ && now - *slow_ended_ < kSlowCounts) ||
           (reading_since_ && now - *reading_since_ > kSlow);
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
  static constexpr std::chrono::seconds kSlow{1};
  /// Between slow steps there may be quick ones, and turns of others.
  static constexpr std::chrono::seconds kSlowCounts{30};

  mutable Mutex mutex_;
  std::string sequence_ RELAY_GUARDED_BY(mutex_);
  OpenWriter writer_ RELAY_GUARDED_BY(mutex_);
  std::optional<SteadyClock::time_point> reading_since_ RELAY_GUARDED_BY(mutex_);
  std::optional<SteadyClock::time_point> slow_ended_ RELAY_GUARDED_BY(mutex_);
};

/// A step that reads, for as long as this lives. Of an outbox of ours it is not noted.
class ReadingStep {
 public:
  ReadingStep(OutboxStatus& status, bool adopted) : status_(adopted ? &status : nullptr) {
    if (status_) status_->set_reading(true);
  }
  ~ReadingStep() {
    if (status_) status_->set_reading(false);
  }
  ReadingStep(const ReadingStep&) = delete;
  ReadingStep& operator=(const ReadingStep&) = delete;

 private:
  OutboxStatus* const status_;
};

}  // namespace relay::outbox
