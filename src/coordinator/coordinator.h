#pragma once

#include <atomic>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "config/settings.h"
#include "connector/registry.h"
#include "coordinator/catalog_client.h"
#include "coordinator/finished_replays.h"
#include "coordinator/group_role.h"
#include "coordinator/housekeeper.h"
#include "coordinator/observer.h"
#include "coordinator/pipeline_runner.h"
#include "coordinator/pipeline_table.h"
#include "coordinator/schema_watch.h"
#include "coordinator/snapshots.h"
#include "coordinator/sweep.h"
#include "core/deadline.h"
#include "core/error.h"
#include "ownership/membership.h"
#include "postgres/pool.h"
#include "status/instance.h"

namespace relay::coordinator {

/// Keeps the pipelines of this instance as the configuration and the other instances require. One
/// control thread does one round after another: it renews the leases, reads what changed, lets the
/// reconciler decide, and does what that says; between two rounds it waits for news. When the
/// lease session is lost, it ends every pipeline and begins anew. The public functions may be
/// called from any other thread.
class Coordinator final : public status::Instance {
 public:
  Coordinator(config::Settings settings, const Registry& registry, Metrics& metrics,
              FileLoader load_file);
  ~Coordinator() override;

  void start();
  /// Ends all pipelines within the drain timeout (less, when `abort` is called), commits, releases.
  void stop();
  /// Gives up what is still in flight: it will be sent again.
  void abort() { aborted_ = true; }
  /// Reads the configuration file again (SIGHUP).
  void reload();

  /// Does not wait for the control thread.
  status::Snapshot snapshot() const override { return snapshots_.take(); }
  postgres::Pool* changes() override { return &pool_; }
  std::vector<status::DeadLetters> dead_letters() override;

 private:
  void run(std::stop_token stop);
  Result<void> session(std::stop_token stop);
  Result<void> round(std::stop_token stop);
  Result<void> take_duty(std::stop_token stop);
  Result<void> release(const Reconciler::Leaving& leaving, std::stop_token stop);
  Result<void> follow_changes(std::stop_token stop);
  Result<void> balance(std::stop_token stop);
  Result<void> wait_for_change(std::stop_token stop);
  void lose_everything(const Error& error);
  void end_everything(Deadline drain);
  void note_database(const Result<void>& round);
  void hear(const std::vector<std::string>& payloads);
  PipelineHooks hooks();

  const config::Settings settings_;
  postgres::Pool pool_;
  const Workshop workshop_;
  ownership::Membership membership_;
  GroupRole role_;
  CatalogClient catalog_;
  FinishedReplays replays_;
  std::atomic<bool> poked_{false};  ///< the next round is to begin at once
  std::atomic<bool> aborted_{false};
  PipelineTable table_;
  Snapshots snapshots_;
  Observer observer_;
  SteadyClock::time_point next_look_{};  ///< at the configuration; of the control thread

  // From `start` to `stop`.
  std::unique_ptr<Sweep> sweep_;
  std::unique_ptr<Housekeeper> housekeeper_;
  std::unique_ptr<SchemaWatch> schema_;
  std::unique_ptr<PipelineRunner> runner_;
  std::jthread thread_;
};

}  // namespace relay::coordinator
