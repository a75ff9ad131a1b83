#pragma once

#include <signal.h>

#include <functional>

namespace relay::cli {

/// The signals that steer the program: SIGTERM and SIGINT end it, SIGHUP reloads its configuration.
/// They are blocked in the thread that makes this object and in those that it starts later. SIGPIPE
/// and SIGXFSZ are ignored: the write that would raise one fails with an error.
class Signals {
 public:
  Signals();

  enum class Wish { end, reload };
  /// Waits for the next one.
  Wish next() const;

  /// Calls `stop`; a second signal to end meanwhile ends the process at once.
  void shut_down(const std::function<void()>& stop) const;

 private:
  sigset_t set_;
};

}  // namespace relay::cli
