#pragma once

#include <atomic>
#include <cstdint>
#include <stop_token>
#include <string>
#include <thread>

namespace relay::cli {

/// Runs a statement so many times a second, on a thread of its own, until it is stopped or the
/// statement fails.
class TimedWriter {
 public:
  TimedWriter(std::string url, std::string statement, int rate);

  std::int64_t written() const { return written_; }
  void stop();

 private:
  void run(const std::string& url, const std::string& statement, int rate, std::stop_token stop);

  std::atomic<std::int64_t> written_ = 0;
  std::jthread thread_;
};

}  // namespace relay::cli
