#include "cli/signals.h"

#include <pthread.h>
#include <unistd.h>

#include <exception>
#include <stop_token>
#include <thread>

#include "core/log.h"
#include "core/shortage.h"

namespace relay::cli {

Signals::Signals() : set_() {
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);
  sigemptyset(&set_);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set_, signal);
  pthread_sigmask(SIG_BLOCK, &set_, nullptr);
}

Signals::Wish Signals::next() const {
  int signal = 0;
  sigwait(&set_, &signal);
  return signal == SIGHUP ? Wish::reload : Wish::end;
}

void Signals::shut_down(const std::function<void()>& stop) const {
  log::info("stopping", "", "finishing what is in flight; a second signal ends at once");
  const auto watch = [this](std::stop_token stopped) {
    const timespec slice{0, 50'000'000};
    while (!stopped.stop_requested()) {
      const int signal = sigtimedwait(&set_, nullptr, &slice);
      if (signal == SIGTERM || signal == SIGINT) ::_exit(130);
    }
  };
  std::jthread watchdog;
  try {
    watchdog = std::jthread(watch);
  } catch (const std::exception& exception) {
    log::failure("stopping", "", shortage::error_of(exception, "watching for a second signal"));
  }
  stop();
}

}  // namespace relay::cli
