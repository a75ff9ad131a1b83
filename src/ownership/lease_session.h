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

namespace relay::ownership {

/// The database side of leases: functions and tables with the promises of the relay's
/// (sql/functions/115_relay_leases.sql), maybe under other names.
struct LeaseNames {
  std::string prefix;   ///< begins each name: "pgtrickle.relay_"
  std::string channel;  ///< where the instances are told what changed
};

/// What a renewal found out about the instances of the group.
struct Renewal {
  std::size_t live = 0;              ///< instances that may own something, this one included
  std::vector<std::string> gone;     ///< their database session was no longer there
  std::vector<std::string> expired;  ///< they did not renew for their lease timeout
  std::vector<std::string> older;    ///< of a version that owns by advisory locks
  /// How long until the first lease of a live instance ends, unless that one renews it.
  std::chrono::milliseconds first_end = std::chrono::milliseconds::max();
};

/// The database session behind this instance's leases: they end with it. It is dedicated, never
/// pooled. Other small statements of the same thread may use it too. One thread. Every call gives
/// up after kTimeout, with an error after which `ok()` tells whether the session, and every lease
/// with it, is lost.
class LeaseSession {
 public:
  LeaseSession(std::unique_ptr<postgres::Connection> connection, const LeaseNames& names,
               std::string group, std::string worker_id);

  static constexpr std::chrono::milliseconds kTimeout{4000};

  bool ok() const { return !ended_ && connection_->ok(); }

  /// To be called once, before anything is taken.
  Result<void> open(std::chrono::milliseconds lease_timeout, std::stop_token stop);

  /// Renews all leases, and writes the heartbeat once a second. Fenced: another instance found them
  /// expired, and they are lost.
  Result<Renewal> renew(std::stop_token stop);
  /// Gives up everything and takes this instance off the list.
  Result<void> close(std::stop_token stop);

  /// `kind`: what the leases are for. Those of `names` that were free and are ours now, at most
  /// `limit`.
  Result<std::vector<std::string>> take(std::string_view kind, std::span<const std::string> names,
                                        std::size_t limit, std::stop_token stop);
  /// The lease of a kind of which there is one; true: it is ours now.
  Result<bool> take_single(std::string_view kind, std::stop_token stop);
  /// Gives leases up and tells the other instances that they are free. An error ends the session,
  /// which frees them too: while the session held them, no instance could own these names.
  Result<void> release(std::string_view kind, std::span<const std::string> names,
                       std::stop_token stop);

  /// Waits for notifications on the channel; the payloads that arrived.
  Result<std::vector<std::string>> wait(Deadline deadline, std::stop_token stop);
  Result<postgres::Rows> query(std::string_view sql, std::initializer_list<postgres::Param> params,
                               std::stop_token stop);

  postgres::Connection& connection() { return *connection_; }
  const std::string& group() const { return group_; }
  const std::string& worker_id() const { return worker_id_; }

 private:
  Result<void> heartbeat(std::stop_token stop);

  struct Statements {
    explicit Statements(const LeaseNames& names);
    const std::string open, listen, heartbeat, renew, close, take, release;
  };

  const std::unique_ptr<postgres::Connection> connection_;
  const Statements sql_;
  const std::string group_;
  const std::string worker_id_;
  std::string token_;
  SteadyClock::time_point next_heartbeat_{};
  bool ended_ = false;
};

}  // namespace relay::ownership
