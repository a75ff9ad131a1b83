#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "core/deadline.h"

namespace relay::rabbitmq {

/// Decides whether the other end of a connection is gone: it sent nothing for two intervals. While
/// bytes wait that were not read, it may be unable to send, which counts as if it had. No clock, no
/// I/O.
class Silence {
 public:
  using TimePoint = SteadyClock::time_point;

  Silence(std::chrono::seconds interval, TimePoint now) : limit_(2 * interval), heard_(now) {}

  /// `last_arrival`: of any bytes. `unread`: bytes that wait to be read.
  bool lasts(TimePoint now, TimePoint last_arrival, int unread);

 private:
  const std::chrono::seconds limit_;
  TimePoint heard_;
};

/// Sends heartbeats over a connection and listens for those of the broker, in a thread of its own:
/// whatever the pipeline waits for, the connection stays alive. Shuts the socket down when the
/// broker has been silent for two intervals; the sink or source meets the end of the connection
/// then.
class Heartbeat {
 public:
  /// `send` sends one, if the connection is not in use: what is sent otherwise does as well. The
  /// socket stays open as long as this object lives.
  Heartbeat(int socket, std::chrono::seconds interval, std::function<void()> send);
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  /// It ended the connection. Any thread.
  bool met_silence() const { return met_silence_; }
  std::chrono::seconds interval() const { return interval_; }

 private:
  void run(std::stop_token stop);

  const int socket_;
  const std::chrono::seconds interval_;
  const std::function<void()> send_;
  std::atomic<bool> met_silence_ = false;
  std::jthread thread_;  // last: it ends first
};

}  // namespace relay::rabbitmq
