#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/pipeline_config.h"
#include "connector/settled_rows.h"
#include "coordinator/assembly.h"
#include "coordinator/catalog_client.h"
#include "coordinator/cause_rules.h"
#include "coordinator/reconciler.h"
#include "core/deadline.h"
#include "core/mutex.h"
#include "status/causes.h"
#include "status/status.h"

namespace relay::coordinator {

/// A pipeline of the configuration, whether this instance owns it or not. Where it stands is in the
/// reconciler, under the same name.
struct PipelineEntry {
  config::PipelineConfig config;
  Control control;
  Assembled assembled;  ///< empty: it does not run here
  /// When an end that was asked for is forced.
  Deadline drain = Deadline::never();
  /// Ended with the lease session, and kept until it is known which instance owns it now: its
  /// source refuses what is sent to it meanwhile.
  std::unique_ptr<Pipeline> turning_away;
  std::optional<Error> problem;  ///< why it does not run although this instance owns it
  std::chrono::system_clock::time_point problem_since{};
  std::string watched;  ///< the sequence that the sweep watches for it
  /// Of all pipelines of this name that ran here.
  std::shared_ptr<SettledRows> settled = std::make_shared<SettledRows>();
  std::int64_t counted_gone = 0;  ///< of `settled`, what the metric has counted
  std::optional<status::OutboxProblem> outbox_problem;
  DeadLetterCount dead_letters;
  std::string written_status;  ///< what was last written to the database
};

/// What this instance knows of itself.
struct InstanceState {
  bool database_connected = false;
  bool catalog_read = false;  ///< once, since the start
  bool stopping = false;
  std::optional<Error> database_error;
  std::vector<status::Blocker> blockers;
  status::Causes causes;
};

/// The pipelines and the state of this instance: what the control thread shares with the threads
/// that show it. Only the control thread changes it, apart from `stopping`. The mutex is held for
/// no wait for the database and for no pipeline's end.
struct PipelineTable {
  mutable Mutex mutex;
  Reconciler reconciler RELAY_GUARDED_BY(mutex);
  std::map<std::string, PipelineEntry> entries RELAY_GUARDED_BY(mutex);
  InstanceState instance RELAY_GUARDED_BY(mutex);

  status::PipelineStatus status_of(const PipelineEntry& entry) const RELAY_REQUIRES(mutex);
  PipelineFacts facts_of(const PipelineEntry& entry) const RELAY_REQUIRES(mutex);
};

}  // namespace relay::coordinator
