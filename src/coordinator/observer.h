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

/// Finds out from time to time how the pipelines of this instance do and why they are degraded,
/// and tells it: in the table, in the metrics, in the log and in the status rows of the database.
/// The control thread.
class Observer {
 public:
  Observer(PipelineTable& table, const Registry& registry, postgres::Pool& pool, Metrics& metrics)
      : table_(table), registry_(registry), pool_(pool), metrics_(metrics) {}

  /// A new session was opened: everything is measured at the next `measure`.
  void start_over() { next_numbers_ = {}; }
  /// Looks for sessions that keep this instance waiting. Needs no lease.
  Result<void> look_for_blockers(ownership::LeaseSession& session, std::stop_token stop);
  /// Measures what the database knows, where that is due. `now`: when the round began.
  Result<void> measure(ownership::LeaseSession& session, SteadyClock::time_point now,
                       std::stop_token stop);
  /// Finds out why pipelines, or this instance, are degraded, and logs what is new of that. Shows
  /// what sources and sinks report in the metrics.
  /// `on_duty`: this instance speaks for the whole database. `schema` is given the errors of
  /// pipelines, and asked for its cause. True: a secret was refused, and what
  /// the configuration refers to is to be resolved again.
  bool look_for_causes(bool on_duty, SchemaWatch& schema);
  /// Writes how owned pipelines do, where it changed.
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
  std::vector<StreamFailure> stream_failures_;
  std::vector<status::OutboxProblem> unread_problems_;  ///< of outboxes that no pipeline reads
  std::set<std::string> outboxes_told_;                 ///< outboxes that have the problem metric
  std::set<int> ageless_;  ///< sessions that the last look found holding locks, since when unknown
};

}  // namespace relay::coordinator
