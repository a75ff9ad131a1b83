#pragma once

#include <chrono>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"

namespace relay::coordinator {

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
/// It is dedicated, never pooled. The coordinator's other small statements use it too. One thread.
/// Every call gives up after kTimeout, with an error after which `ok()` tells whether the session,
/// and every lease with it, is lost.
class LeaseSession {
 public:
  LeaseSession(std::unique_ptr<postgres::Connection> connection, std::string group,
               std::string worker_id);

  static constexpr std::string_view kApplicationName = "pgtrickle-relay leases";
  static constexpr std::chrono::milliseconds kTimeout{4000};

  bool ok() const { return !ended_ && connection_->ok(); }

  /// To be called once, before anything is taken.
  Result<void> open(std::chrono::milliseconds lease_timeout, std::stop_token stop);

  /// Renews all leases, and writes the heartbeat once a second. Fenced: another instance found them
  /// expired, and they are lost.
  Result<Renewal> renew(std::stop_token stop);
  /// Gives up everything and takes this instance off the list.
  Result<void> close(std::stop_token stop);

  /// Those of `names` that were free and are ours now, at most `limit`.
  Result<std::vector<std::string>> take(LeaseKind kind, std::span<const std::string> names,
                                        std::size_t limit, std::stop_token stop);
  /// Gives leases up and tells the other instances that they are free. An error ends the session,
  /// which frees them too: while the session held them, no instance could run these pipelines.
  Result<void> release(LeaseKind kind, std::span<const std::string> names, std::stop_token stop);

  /// Waits for notifications about the configuration; the payloads that arrived.
  Result<std::vector<std::string>> wait(Deadline deadline, std::stop_token stop);
  Result<postgres::Rows> query(std::string_view sql, std::initializer_list<postgres::Param> params,
                               std::stop_token stop);

  postgres::Connection& connection() { return *connection_; }
  const std::string& group() const { return group_; }
  const std::string& worker_id() const { return worker_id_; }

 private:
  Result<void> heartbeat(std::stop_token stop);

  const std::unique_ptr<postgres::Connection> connection_;
  const std::string group_;
  const std::string worker_id_;
  std::string token_;
  SteadyClock::time_point next_heartbeat_{};
  bool ended_ = false;
};

}  // namespace relay::coordinator
