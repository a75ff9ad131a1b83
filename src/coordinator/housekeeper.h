#pragma once

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/mutex.h"
#include "postgres/pool.h"

namespace relay::coordinator {

/// Keeps the database side in order while this instance is on duty. Refreshes stream tables that
/// are due, each in its own transaction and two at a time, so that a slow one does not delay the
/// others for long; runs retention and upkeep in small batches; looks every second whether outboxes
/// are switched off. Has its own threads.
class Housekeeper {
 public:
  Housekeeper(postgres::Pool& pool, std::chrono::milliseconds stalled_after);
  ~Housekeeper();

  /// At most one instance is on duty; the coordinator decides by a lease. Any thread.
  void set_on_duty(bool on_duty) { on_duty_ = on_duty; }

 private:
  void run_refreshes(std::stop_token stop);
  void run_upkeep(std::stop_token stop);
  Result<void> refresh_due(std::stop_token stop);
  Result<void> refresh(postgres::Connection& connection, const std::string& name,
                       std::stop_token stop);
  Result<bool> upkeep(std::stop_token stop);
  Result<void> watch_capture(std::optional<std::string>& seen, std::stop_token stop);
  void keep_session_ready(std::stop_token stop);
  bool claim(const std::string& table);
  void let_go(const std::string& table);

  postgres::Pool& pool_;
  const std::chrono::milliseconds stalled_after_;
  std::atomic<bool> on_duty_ = false;
  Mutex mutex_;
  std::vector<std::string> refreshing_ RELAY_GUARDED_BY(mutex_);
  std::vector<std::jthread> threads_;
};

}  // namespace relay::coordinator
