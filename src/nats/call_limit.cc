#include "nats/call_limit.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <ctime>
#include <mutex>
#include <system_error>

namespace relay::nats {

namespace {

/// The first one is that of leases (core/lease.cc).
int limit_signal() {
  return SIGRTMIN + 1;
}

void on_signal(int) {}

/// Without SA_RESTART: what is interrupted returns.
void prepare_signal() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_handler = &on_signal;
    sigemptyset(&action.sa_mask);
    ::sigaction(limit_signal(), &action, nullptr);
  });
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, limit_signal());
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

timespec time_of(std::chrono::milliseconds length) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(length);
  return {.tv_sec = seconds.count(), .tv_nsec = std::chrono::nanoseconds(length - seconds).count()};
}

}  // namespace

Result<std::unique_ptr<CallLimit>> CallLimit::make(std::chrono::milliseconds after) {
  // A call may begin just behind the signal: so it comes again.
  constexpr std::chrono::milliseconds kAgain{50};
  prepare_signal();
  const Deadline end = Deadline::after(after);
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = limit_signal();
  event._sigev_un._tid = ::gettid();
  void* timer = nullptr;
  if (::timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) {
    const int error = errno;
    return fail(ErrorClass::transient, "no_timer",
                fmt::format("cannot make a timer: {}", std::generic_category().message(error)),
                "raise the limit of pending signals (ulimit -i) of the relay's user");
  }
  const itimerspec time{.it_interval = time_of(kAgain), .it_value = time_of(after)};
  ::timer_settime(timer, 0, &time, nullptr);
  return std::unique_ptr<CallLimit>(new CallLimit(end, timer));
}

CallLimit::~CallLimit() {
  ::timer_delete(timer_);
}

}  // namespace relay::nats
