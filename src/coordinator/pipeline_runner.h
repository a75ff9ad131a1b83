#pragma once

#include <chrono>
#include <span>
#include <string>
#include <vector>

#include "config/pipeline_config.h"
#include "coordinator/assembly.h"
#include "coordinator/catalog_client.h"
#include "coordinator/pipeline_table.h"
#include "coordinator/reconciler.h"
#include "coordinator/sweep.h"
#include "core/error.h"
#include "core/mutex.h"
#include "pipeline/pipeline.h"

namespace relay::coordinator {

/// Creates, starts, controls and ends pipelines as the reconciler decides, and updates the table,
/// the sweep and the metrics accordingly. It never waits for a pipeline while it holds the table's
/// mutex, so that the state can be shown meanwhile. Called by the control thread.
class PipelineRunner {
 public:
  PipelineRunner(PipelineTable& table, Workshop workshop, Sweep& sweep, PipelineHooks hooks,
                 std::chrono::milliseconds drain_timeout);

  /// The configuration was read: stops or re-creates the pipelines that changed, and no others.
  void follow(std::vector<config::PipelineConfig> wanted);
  /// Applies the control requests of operators.
  void apply(Requests requests);

  /// Begins to hand over the pipelines beyond this instance's share; returns what it may take over.
  Reconciler::Exchange balance(const Reconciler::Group& group);
  void took(std::span<const std::string> names);

  /// Starts owned pipelines that do not run, and shows the sweep those that were opened. True: one
  /// could not be made, and what its configuration refers to is to be resolved again.
  bool start_due();
  /// Ends pipelines that must end or have failed. The caller releases the leases of those returned.
  Reconciler::Leaving settle_ended();
  /// Every lease is lost: pipelines end at once, committing nothing that a new owner would not also
  /// accept.
  void lose_all(const Error& error);

  /// The end of the program: asks all to stop; says whether they have; ends the others by force.
  void request_stop();
  bool all_ended() const;
  void end_all();

 private:
  using Names = Reconciler::Names;

  void stop(const Names& names) RELAY_REQUIRES(table_.mutex);
  void end_if_broken(PipelineEntry& entry) RELAY_REQUIRES(table_.mutex);
  std::size_t coming_up() const RELAY_REQUIRES(table_.mutex);
  bool make(PipelineEntry& entry) RELAY_REQUIRES(table_.mutex);
  void watch(PipelineEntry& entry) RELAY_REQUIRES(table_.mutex);
  std::vector<Assembled> end(std::vector<Assembled> pipelines);

  PipelineTable& table_;
  const Workshop workshop_;
  Sweep& sweep_;
  const PipelineHooks hooks_;
  const std::chrono::milliseconds drain_timeout_;
};

}  // namespace relay::coordinator
