#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "connector/registry.h"
#include "core/deadline.h"
#include "core/mutex.h"
#include "pipeline/metrics.h"
#include "status/instance.h"
#include "stream_program/configuration.h"
#include "stream_program/stream_runner.h"

namespace relay::stream_program {

/// The streams of this process. `start`, `follow` and `stop` are for one thread; any thread may
/// call the rest.
class Daemon final : public status::Instance {
 public:
  Daemon(Configuration configuration, const Registry& registry, Metrics& metrics);

  void start();
  /// Ends the streams that the configuration no longer has, restarts those that it changed, and
  /// starts the new ones. The settings of the program stay as they are.
  void follow(std::vector<StreamConfig> streams);
  /// Ends all streams within the drain timeout.
  void stop();

  status::Snapshot snapshot() const override;
  postgres::Pool* changes() override { return nullptr; }
  std::vector<status::DeadLetters> dead_letters() override;

 private:
  using Runners = std::vector<std::unique_ptr<StreamRunner>>;
  static void end(std::span<StreamRunner* const> runners);

  const Settings settings_;
  const Registry& registry_;
  Metrics& metrics_;
  const std::string worker_id_;
  const SteadyClock::time_point started_ = SteadyClock::now();
  std::vector<StreamConfig> configured_;
  mutable Mutex mutex_;
  Runners runners_ RELAY_GUARDED_BY(mutex_);
  bool stopping_ RELAY_GUARDED_BY(mutex_) = false;
};

}  // namespace relay::stream_program
