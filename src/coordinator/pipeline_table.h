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

/// A pipeline of the configuration, whether this instance owns it or not. The reconciler keeps its
/// state under the same name.
struct PipelineEntry {
  config::PipelineConfig config;
  Control control;
  Assembled assembled;  ///< empty: it does not run here
  /// When the pipeline is stopped by force after it was asked to end.
  Deadline drain = Deadline::never();
  /// A pipeline that ended with the lease session. It is kept until the new owner is known, because
  /// its source must answer clients that still send to it.
  std::unique_ptr<Pipeline> turning_away;
  std::optional<Error> problem;  ///< why it does not run although this instance owns it
  std::chrono::system_clock::time_point problem_since{};
  std::string watched;  ///< the sequence that the sweep watches for it
  /// The rows that any pipeline of this name settled here.
  std::shared_ptr<SettledRows> settled = std::make_shared<SettledRows>();
  std::int64_t counted_gone = 0;  ///< lost rows of `settled` that the metric counts
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
/// that show it. Only the control thread changes it, apart from `stopping`. No thread holds the
/// mutex while it waits for the database or for a pipeline to end.
struct PipelineTable {
  mutable Mutex mutex;
  Reconciler reconciler RELAY_GUARDED_BY(mutex);
  std::map<std::string, PipelineEntry> entries RELAY_GUARDED_BY(mutex);
  InstanceState instance RELAY_GUARDED_BY(mutex);

  status::PipelineStatus status_of(const PipelineEntry& entry) const RELAY_REQUIRES(mutex);
  PipelineFacts facts_of(const PipelineEntry& entry) const RELAY_REQUIRES(mutex);
};

}  // namespace relay::coordinator
