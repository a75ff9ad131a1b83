#include "cli/interrupt.h"

#include <algorithm>
#include <array>
#include <ctime>

namespace relay::cli {

namespace {

constexpr std::array kSignals{SIGTERM, SIGINT};

}  // namespace

Interrupt::Interrupt() {
  ::signal(SIGPIPE, SIG_IGN);
  sigemptyset(&set_);
  for (const int signal : kSignals) sigaddset(&set_, signal);
  pthread_sigmask(SIG_BLOCK, &set_, nullptr);
}

bool Interrupt::pending() const {
  sigset_t pending;
  sigpending(&pending);
  return std::ranges::any_of(kSignals,
                             [&](int signal) { return sigismember(&pending, signal) == 1; });
}

bool Interrupt::wait(double seconds) const {
  timespec time{};
  time.tv_sec = static_cast<time_t>(seconds);
  time.tv_nsec = static_cast<long>((seconds - static_cast<double>(time.tv_sec)) * 1e9);
  return sigtimedwait(&set_, nullptr, &time) > 0;
}

void Interrupt::wait() const {
  int signal = 0;
  sigwait(&set_, &signal);
}

}  // namespace relay::cli
