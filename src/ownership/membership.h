#pragma once

#include <chrono>
#include <memory>
#include <stop_token>
#include <string>

#include "ownership/lease_clock.h"
#include "ownership/lease_session.h"
#include "postgres/connection.h"

namespace relay::ownership {

/// This instance's part in its group, which shares what there is by leases: the lease session and
/// its renewals. What may be sent under a renewal counts from before it was asked for. The control
/// thread; `lease` any thread.
class Membership {
 public:
  struct Options {
    postgres::Connection::Options connection;
    LeaseNames names;
    std::string group;
    std::string worker_id;
    std::chrono::milliseconds lease_timeout{};
  };
  explicit Membership(Options options);

  /// Connects to the database; takes part only after `join`.
  Result<void> connect(std::stop_token stop);
  Result<void> join(std::stop_token stop);
  /// The last `join` failed, maybe because another session's locks are in its way.
  bool was_kept_out() const { return kept_out_; }
  /// Every lease is lost: what is sent under them ends now.
  void lost();
  /// Gives up all leases. To be called when everything that was owned has ended.
  void leave();

  /// Of the last `connect`.
  LeaseSession& session() { return *session_; }
  /// What this instance sends under.
  Lease& lease() { return clock_.lease(); }

  SteadyClock::time_point next_beat() const { return next_beat_; }
  /// Renews the leases and logs which other instances are gone.
  Result<Renewal> beat(std::stop_token stop);
  /// Renews when it is time. False: the leases are lost.
  bool keep();

 private:
  Result<Renewal> renew(std::stop_token stop);

  const Options options_;
  LeaseClock clock_;
  std::unique_ptr<LeaseSession> session_;
  SteadyClock::time_point next_beat_{};
  bool kept_out_ = false;
};

}  // namespace relay::ownership
