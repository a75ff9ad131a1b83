#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

namespace spdlog::sinks {
class sink;
}

namespace relay::log {

/// Standard error, which may be a pipe that is not read. A thread that logs never waits for it: it
/// writes a line itself where that cannot block, so that what was logged before a crash is in the
/// log; other lines wait for a thread of their own, up to 1 MiB. Beyond that lines are dropped, and
/// how many is written in their place. Any thread. Never destroyed.
class Output {
 public:
  Output();
  void write(std::string line);
  /// Waits, not long, until what waits is written: for the end of the process.
  void drain();

 private:
  void write_now(const std::string& line);
  void run();

  const std::shared_ptr<spdlog::sinks::sink> sink_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> waiting_;  // guarded, as is what follows; the first one is being written
  std::size_t bytes_ = 0;
  std::size_t dropped_ = 0;
  bool has_thread_ = false;
};

}  // namespace relay::log
