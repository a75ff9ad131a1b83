#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <string>

#include "core/mutex.h"

namespace spdlog::sinks {
class sink;
}

namespace relay::log {

/// Standard error, which may be a pipe that is not read. A thread that logs never waits for it: it
/// writes a line itself where that cannot block, so that what was logged before a crash is in the
/// log; other lines are queued for a thread of their own, up to 1 MiB. Further lines are dropped,
/// and their number is logged instead. Any thread. Never destroyed.
class Output {
 public:
  Output();
  void write(std::string line);
  /// Waits, for a second at most, until the queued lines are written. Called at exit.
  void drain();

 private:
  void write_now(const std::string& line);
  void start_thread() RELAY_REQUIRES(mutex_);
  void run();

  const std::shared_ptr<spdlog::sinks::sink> sink_;
  Mutex mutex_;
  Condition changed_;
  // The thread is writing the first of them.
  std::deque<std::string> waiting_ RELAY_GUARDED_BY(mutex_);
  std::size_t bytes_ RELAY_GUARDED_BY(mutex_) = 0;  // of `waiting_`
  std::size_t dropped_ RELAY_GUARDED_BY(mutex_) = 0;
  bool has_thread_ RELAY_GUARDED_BY(mutex_) = false;
};

}  // namespace relay::log
