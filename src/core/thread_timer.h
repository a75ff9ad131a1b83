#pragma once

#include <chrono>
#include <csignal>
#include <ctime>
#include <memory>

#include "core/error.h"

namespace relay {

/// A timer of the kernel that interrupts the thread that made it, and no other. All of its uses are
/// listed here, so that each has a signal of its own.
class ThreadTimer {
 public:
  enum class Use : unsigned char { lease, call_limit };
  /// Calls nothing but what signal-safety(7) allows. `SA_RESTART` among the flags: system calls
  /// that were interrupted go on. Each use has one handler, always the same.
  struct Handler {
    void (*function)(int, siginfo_t*, void*);
    int flags;
  };

  /// `value` is what the handler gets in `si_value`. Transient: the kernel has no timer to spare.
  static Result<std::unique_ptr<ThreadTimer>> make(Use use, Handler handler, clockid_t clock,
                                                   void* value = nullptr);
  ~ThreadTimer();
  ThreadTimer(const ThreadTimer&) = delete;
  ThreadTimer& operator=(const ThreadTimer&) = delete;

  /// Runs out once, when the clock says so; at once where that has passed. Any thread.
  void run_out_at(std::chrono::nanoseconds since_epoch);
  /// Runs out after a time, and again after each `interval`. Any thread.
  void run_out_every(std::chrono::nanoseconds first, std::chrono::nanoseconds interval);

 private:
  explicit ThreadTimer(timer_t timer) : timer_(timer) {}

  const timer_t timer_;
};

}  // namespace relay
