#pragma once

#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "connector/registry.h"
#include "coordinator/cause_rules.h"
#include "coordinator/pipeline_table.h"
#include "coordinator/schema_watch.h"
#include "core/deadline.h"
#include "core/error.h"
#include "ownership/lease_session.h"
#include "pipeline/metrics.h"
#include "postgres/pool.h"
#include "status/status.h"

namespace relay::coordinator {

/// Measures the pipelines of this instance periodically, determines why they are degraded, and
/// reports both: in the table, the metrics, the log and the status rows of the database. Called by
/// the control thread.
class Observer {
 public:
  Observer(PipelineTable& table, const Registry& registry, postgres::Pool& pool, Metrics& metrics,
           const config::SlotLimits& slot_limits)
      : table_(table),
        registry_(registry),
        pool_(pool),
        metrics_(metrics),
        slot_limits_(slot_limits) {}

  /// A new session was opened: everything is measured at the next `measure`.
  void start_over() { next_numbers_ = {}; }
  /// Looks for sessions that keep this instance waiting. Needs no lease.
  Result<void> look_for_blockers(ownership::LeaseSession& session, std::stop_token stop);
  /// Takes the measurements from the database that are due. `now`: when the round began.
  Result<void> measure(ownership::LeaseSession& session, SteadyClock::time_point now,
                       std::stop_token stop);
  /// Determines why pipelines, or this instance, are degraded, and logs new causes. Shows in the
  /// metrics what sources and sinks report.
  /// `on_duty`: this instance speaks for the whole database. `schema` is given the errors of
  /// pipelines, and asked for its cause. True: a secret was refused, and what
  /// the configuration refers to is to be resolved again.
  bool look_for_causes(bool on_duty, SchemaWatch& schema);
  /// Writes the status rows of owned pipelines that changed.
  Result<void> write_statuses(ownership::LeaseSession& session, std::stop_token stop);

 private:
  Result<void> look_at_outboxes(ownership::LeaseSession& session, std::stop_token stop);
  void look_for_gone_rows(std::stop_token stop);

  PipelineTable& table_;
  const Registry& registry_;
  postgres::Pool& pool_;
  Metrics& metrics_;
  SteadyClock::time_point next_numbers_{};
  SteadyClock::time_point next_status_{};
  SteadyClock::time_point next_causes_{};
  const config::SlotLimits slot_limits_;
  std::vector<StreamFailure> stream_failures_;
  std::vector<ReplicationSlot> slots_;
  std::vector<status::OutboxProblem> unread_problems_;  ///< of outboxes that no pipeline reads
  std::set<std::string> outboxes_told_;                 ///< outboxes that have the problem metric
  std::set<int> ageless_;  ///< sessions that the last look found holding locks, since when unknown
};

}  // namespace relay::coordinator
