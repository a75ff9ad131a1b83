#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/pipeline_config.h"
#include "coordinator/cause_rules.h"
#include "coordinator/status.h"
#include "pipeline/pipeline.h"
#include "postgres/connection.h"

namespace relay::coordinator {

/// The sessions that keep relays waiting, by what the database shows of them. Takes no lock on a
/// table of ours.
Result<std::vector<Blocker>> read_blockers(postgres::Connection& connection, Deadline deadline,
                                           std::stop_token stop);

/// A row of the SQL catalog as it stands.
struct CatalogEntry {
  std::string name;
  std::string direction;
  bool enabled = false;
  std::string config;
};

/// What was asked of a pipeline beside its configuration.
struct Control {
  bool paused = false;
  std::vector<ReplayRequest> replays;
};

/// What a lease is for. Pipelines and leadership belong to the group, housekeeping to the database.
enum class LeaseKind { pipeline, leader, housekeeping };

/// What a renewal found out about the relays of the group.
struct Renewal {
  std::size_t live = 0;              ///< relays that may own pipelines, this one included
  std::vector<std::string> gone;     ///< their database session was no longer there
  std::vector<std::string> expired;  ///< they did not renew for their lease timeout
  std::vector<std::string> older;    ///< of a version that owns by advisory locks
  /// How long until the first lease of a live relay ends, unless that relay renews it.
  std::chrono::milliseconds first_end = std::chrono::milliseconds::max();
};

/// The database session behind this instance's leases (sql/115_relay_leases.sql): they end with it.
/// It is dedicated, never pooled, and does the small reads and writes of the coordinator. One
/// thread. Every call gives up after a few seconds, with an error after which `ok()` tells whether
/// the session, and every lease with it, is lost.
class LeaseSession {
 public:
  LeaseSession(std::unique_ptr<postgres::Connection> connection, std::string group,
               std::string worker_id);

  static constexpr std::string_view kApplicationName = "pgtrickle-relay leases";

  bool ok() const { return !ended_ && connection_->ok(); }

  /// To be called once, before anything is taken.
  Result<void> open(std::chrono::milliseconds lease_timeout, std::stop_token stop);
  /// Waits for a change of configuration; the payloads that arrived.
  Result<std::vector<std::string>> wait(Deadline deadline, std::stop_token stop);

  /// Renews all leases, and writes the heartbeat once a second. Fenced: another instance found them
  /// expired, and they are lost.
  Result<Renewal> renew(std::stop_token stop);
  /// Gives up everything and takes this instance off the list.
  Result<void> close(std::stop_token stop);

  /// Those of `names` that were free and are ours now, at most `limit`.
  Result<std::vector<std::string>> take(LeaseKind kind, std::span<const std::string> names,
                                        std::size_t limit, std::stop_token stop);
  /// Gives leases up and tells the other instances that they are free.
  Result<void> release(LeaseKind kind, std::span<const std::string> names, std::stop_token stop);

  /// A text that differs whenever a transaction that wrote to the catalog has committed since.
  Result<std::string> catalog_version(std::stop_token stop);
  Result<std::vector<CatalogEntry>> catalog(std::stop_token stop);
  Result<std::vector<std::pair<std::string, Control>>> controls(std::stop_token stop);
  /// False: another transaction has locked its row, and it is to be tried again.
  Result<bool> finish_replay(std::int64_t id, const std::string& error, std::stop_token stop);
  Result<std::map<std::string, DeadLetterCount>> dead_letters(std::stop_token stop);
  Result<std::vector<Blocker>> blockers(std::stop_token stop);
  /// Stream tables of ours whose last refresh failed.
  Result<std::vector<StreamFailure>> stream_failures(std::stop_token stop);
  /// By the sequence of the outbox.
  Result<std::map<std::string, OutboxProblem>> outbox_problems(std::stop_token stop);
  /// Says that these pipelines have stopped; of those that the database does not know (any more),
  /// it forgets the status. Leaves out those whose row another transaction has locked.
  Result<void> end_status(std::span<const std::string> pipelines, std::stop_token stop);
  /// Leaves out those whose row another transaction has locked.
  Result<void> write_status(std::span<const PipelineStatus> statuses, std::stop_token stop);

 private:
  Result<void> heartbeat(std::stop_token stop);
  Result<postgres::Rows> query(std::string_view sql, std::initializer_list<postgres::Param> params,
                               std::stop_token stop);

  std::unique_ptr<postgres::Connection> connection_;
  std::string group_;
  std::string worker_id_;
  std::string token_;
  SteadyClock::time_point next_heartbeat_{};
  bool ended_ = false;
};

}  // namespace relay::coordinator
