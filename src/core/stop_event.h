#pragma once

#include <stop_token>
#include <utility>

#include "core/wakeup.h"

namespace relay {

/// A file descriptor that becomes readable when a stop is asked for, to be polled together with a
/// socket. One thread at a time.
class StopEvent {
 public:
  explicit StopEvent(std::stop_token stop);
  StopEvent(const StopEvent&) = delete;
  StopEvent& operator=(const StopEvent&) = delete;

  int fd() const { return wakeup_.fd(); }
  bool is_of(const std::stop_token& stop) const { return stop == stop_; }

 private:
  struct Signal {
    const Wakeup* wakeup;
    void operator()() const noexcept { wakeup->notify(); }
  };
  std::stop_token stop_;
  Wakeup wakeup_;  // before the callback, so that it is closed after the last callback has run
  std::stop_callback<Signal> callback_;
};

}  // namespace relay
