#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "config/pipeline_config.h"
#include "coordinator/status.h"
#include "pipeline/pipeline.h"
#include "postgres/connection.h"

namespace relay::coordinator {

/// A row of the SQL catalog as it stands.
struct CatalogEntry {
  std::string name;
  std::string direction;
  bool enabled = false;
  std::string config;
};

/// What somebody asked of a pipeline beside its configuration.
struct Control {
  bool paused = false;
  std::vector<ReplayRequest> replays;
};

/// Another instance of the group.
struct Instance {
  std::string worker_id;
  bool stale = false;    ///< its heartbeat is older than the lease
  bool present = false;  ///< its lock session is there: only then it can own anything
  int lock_backend_pid = 0;
};

/// The session that owns: advisory locks live and die with it. It is dedicated, never pooled, and
/// does the small reads and writes of the coordinator. One thread. Every call gives up after a few
/// seconds, with an error after which `ok()` tells whether the session (and all locks) is lost.
class LockSession {
 public:
  LockSession(std::unique_ptr<postgres::Connection> connection, std::string group,
              std::string worker_id);

  static constexpr std::string_view kApplicationName = "pgtrickle-relay locks";

  bool ok() const { return connection_->ok(); }

  Result<void> listen(std::stop_token stop);
  /// Waits for a change of configuration; the payloads that arrived.
  Result<std::vector<std::string>> wait(Deadline deadline, std::stop_token stop);

  /// Writes the heartbeat; the other instances of the group.
  Result<std::vector<Instance>> heartbeat(std::chrono::milliseconds lease, std::stop_token stop);
  /// Ends the session of an instance that stopped beating, so that its locks are free.
  Result<void> evict(const Instance& instance, std::stop_token stop);
  Result<void> sign_off(std::stop_token stop);

  /// Those of `keys` that were free and are ours now, at most `limit`.
  Result<std::vector<std::int64_t>> take(std::span<const std::int64_t> keys, std::size_t limit,
                                         std::stop_token stop);
  /// Lets a lock go and tells the others that it is free.
  Result<void> release(std::int64_t key, std::stop_token stop);

  /// A text that differs whenever the catalog does.
  Result<std::string> catalog_version(std::stop_token stop);
  Result<std::vector<CatalogEntry>> catalog(std::stop_token stop);
  Result<std::vector<std::pair<std::string, Control>>> controls(std::stop_token stop);
  Result<void> finish_replay(std::int64_t id, const std::string& error, std::stop_token stop);
  Result<std::map<std::string, std::int64_t>> dead_letters(std::stop_token stop);
  Result<void> write_status(std::span<const PipelineStatus> statuses, std::stop_token stop);

 private:
  Result<postgres::Rows> query(std::string_view sql, std::initializer_list<postgres::Param> params,
                               std::stop_token stop);

  std::unique_ptr<postgres::Connection> connection_;
  std::string group_;
  std::string worker_id_;
};

}  // namespace relay::coordinator
