#pragma once

#include <signal.h>

namespace relay::cli {

/// SIGTERM and SIGINT for a command that ends with either. They are blocked in the thread that
/// makes this object and in those that it starts later; SIGPIPE is ignored.
class Interrupt {
 public:
  Interrupt();

  /// One was sent; a later wait returns at once.
  bool pending() const;
  /// Waits for one, for `seconds` at most. False: none was sent.
  bool wait(double seconds) const;
  void wait() const;

 private:
  sigset_t set_;
};

}  // namespace relay::cli
