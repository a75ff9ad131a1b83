#include "core/log_output.h"

#include <fmt/core.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <thread>
#include <utility>

namespace relay::log {

namespace {

constexpr std::size_t kMostBytes = 1u << 20;
constexpr std::chrono::seconds kDrainTimeout{1};

/// Writing to a file never blocks. A pipe that polls as writable has room for PIPE_BUF bytes
/// (pipe(7)). For terminals and sockets there is no such promise.
bool would_not_block(std::size_t bytes) {
  struct stat status {};
  if (::fstat(STDERR_FILENO, &status) != 0) return true;
  if (S_ISREG(status.st_mode)) return true;
  pollfd out{STDERR_FILENO, POLLOUT, 0};
  return S_ISFIFO(status.st_mode) && bytes <= PIPE_BUF && ::poll(&out, 1, 0) == 1;
}

std::string dropped_line(std::size_t lines) {
  return fmt::format("{} lines of this log were dropped: standard error was not read in time",
                     lines);
}

}  // namespace

Output::Output() : sink_(std::make_shared<spdlog::sinks::stderr_sink_mt>()) {
  // The line is complete; spdlog's own %v would escape nothing.
  sink_->set_formatter(std::make_unique<spdlog::pattern_formatter>("%v"));
}

void Output::write(std::string line) {
  {
    const MutexLock lock(mutex_);
    if (waiting_.empty() && dropped_ == 0 && would_not_block(line.size() + 1)) {
      write_now(line);
      return;
    }
    if (bytes_ + line.size() > kMostBytes) {
      ++dropped_;
      return;
    }
    bytes_ += line.size();
    waiting_.push_back(std::move(line));
    if (!has_thread_) start_thread();
  }
  changed_.notify_all();
}

void Output::start_thread() {
  // Signals stay with the thread that waits for them.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread([this] { run(); }).detach();
    has_thread_ = true;
  } catch (const std::exception&) {
    // The next line tries again.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Output::write_now(const std::string& line) {
  try {
    sink_->log(spdlog::details::log_msg("relay", spdlog::level::info, line));
    sink_->flush();
  } catch (const std::exception&) {
    // Standard error is gone or full. Losing a line must not stop a pipeline.
  }
}

void Output::run() {
  const MutexLock lock(mutex_);
  while (true) {
    changed_.wait(mutex_, [this]() RELAY_REQUIRES(mutex_) { return !waiting_.empty(); });
    const std::string& line = waiting_.front();  // other threads only append
    {
      const MutexUnlock unlock(mutex_);
      write_now(line);
    }
    bytes_ -= line.size();
    waiting_.pop_front();
    if (!waiting_.empty() || dropped_ == 0) {
      changed_.notify_all();
      continue;
    }
    waiting_.push_back(dropped_line(std::exchange(dropped_, 0)));
    bytes_ += waiting_.back().size();
  }
}

void Output::drain() {
  const MutexLock lock(mutex_);
  changed_.wait_for(mutex_, kDrainTimeout,
                    [this]() RELAY_REQUIRES(mutex_) { return waiting_.empty(); });
}

}  // namespace relay::log
