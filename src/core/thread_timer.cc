#include "core/thread_timer.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <mutex>
#include <system_error>

namespace relay {

namespace {

int signal_of(ThreadTimer::Use use) {
  return SIGRTMIN + static_cast<int>(use);
}

void prepare_signal(ThreadTimer::Use use, ThreadTimer::Handler handler) {
  static std::array<std::once_flag, 2> handled;
  std::call_once(handled[static_cast<std::size_t>(use)], [&] {
    struct sigaction action {};
    action.sa_sigaction = handler.function;
    action.sa_flags = SA_SIGINFO | handler.flags;
    sigemptyset(&action.sa_mask);
    ::sigaction(signal_of(use), &action, nullptr);
  });
  // Libraries block all signals in threads of theirs.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, signal_of(use));
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

/// A time of zero would disarm a timer.
timespec time_of(std::chrono::nanoseconds time) {
  const auto due = std::max(time, std::chrono::nanoseconds(1));
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(due);
  return {.tv_sec = seconds.count(), .tv_nsec = (due - seconds).count()};
}

}  // namespace

Result<std::unique_ptr<ThreadTimer>> ThreadTimer::make(Use use, Handler handler, clockid_t clock,
                                                       void* value) {
  prepare_signal(use, handler);
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = signal_of(use);
  event.sigev_value.sival_ptr = value;
  event._sigev_un._tid = ::gettid();
  timer_t timer = nullptr;
  if (::timer_create(clock, &event, &timer) != 0) {
    const int error = errno;
    return fail(ErrorClass::transient, "no_timer",
                fmt::format("cannot make a timer: {}", std::generic_category().message(error)),
                "raise the limit of pending signals (ulimit -i) of the relay's user");
  }
  return std::unique_ptr<ThreadTimer>(new ThreadTimer(timer));
}

ThreadTimer::~ThreadTimer() {
  ::timer_delete(timer_);
}

void ThreadTimer::run_out_at(std::chrono::nanoseconds since_epoch) {
  const itimerspec time{.it_interval = {}, .it_value = time_of(since_epoch)};
  ::timer_settime(timer_, TIMER_ABSTIME, &time, nullptr);
}

void ThreadTimer::run_out_every(std::chrono::nanoseconds first, std::chrono::nanoseconds interval) {
  const itimerspec time{.it_interval = time_of(interval), .it_value = time_of(first)};
  ::timer_settime(timer_, 0, &time, nullptr);
}

}  // namespace relay
