#pragma once

#include <chrono>
#include <memory>
#include <utility>

#include "core/deadline.h"
#include "core/error.h"
#include "core/thread_timer.h"

namespace relay::nats {

/// Interrupts the system calls in which this thread blocks, once a time has passed and from then on
/// until it is destroyed. For a library that waits without a limit. Made and destroyed by one
/// thread.
class CallLimit {
 public:
  /// Transient: the kernel has no timer to spare.
  static Result<std::unique_ptr<CallLimit>> make(std::chrono::milliseconds after);

  bool passed() const { return end_.passed(); }

 private:
  CallLimit(Deadline end, std::unique_ptr<ThreadTimer> timer)
      : end_(end), timer_(std::move(timer)) {}

  const Deadline end_;
  const std::unique_ptr<ThreadTimer> timer_;
};

}  // namespace relay::nats
