#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace relay::http {

/// Threads that run what is posted to them. (A pool of asio waits for ever for the threads that it
/// has started where the next one cannot be started.)
class Workers {
 public:
  Workers();
  /// Joins.
  ~Workers();

  void start(std::size_t count);
  /// Any thread.
  void post(std::function<void()> function);
  /// What was posted is done first.
  void join();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace relay::http
