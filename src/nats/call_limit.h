#pragma once

#include <chrono>
#include <memory>

#include "core/deadline.h"
#include "core/error.h"

namespace relay::nats {

/// Interrupts the system calls in which this thread blocks, once a time has passed and from then on
/// until it is destroyed. For a library that waits without a limit. Made and destroyed by one
/// thread.
class CallLimit {
 public:
  /// Transient: the kernel has no timer to spare.
  static Result<std::unique_ptr<CallLimit>> make(std::chrono::milliseconds after);
  ~CallLimit();
  CallLimit(const CallLimit&) = delete;
  CallLimit& operator=(const CallLimit&) = delete;

  bool passed() const { return end_.passed(); }

 private:
  CallLimit(Deadline end, void* timer) : end_(end), timer_(timer) {}

  const Deadline end_;
  void* const timer_;
};

}  // namespace relay::nats
