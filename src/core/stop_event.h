#pragma once

#include <functional>
#include <stop_token>

namespace relay {

/// A file descriptor that becomes readable when a stop is asked for, to be polled together with a
/// socket. One thread at a time.
class StopEvent {
 public:
  explicit StopEvent(std::stop_token stop);
  StopEvent(const StopEvent&) = delete;
  StopEvent& operator=(const StopEvent&) = delete;

  int fd() const { return fd_.value; }
  bool is_of(const std::stop_token& stop) const { return stop == stop_; }

 private:
  struct Descriptor {
    int value;
    ~Descriptor();
  };
  struct Signal {
    int fd;
    void operator()() const noexcept;
  };
  std::stop_token stop_;
  Descriptor fd_;  // before the callback, so that it is closed after the last callback has run
  std::stop_callback<Signal> callback_;
};

}  // namespace relay
