#pragma once

#include <chrono>
#include <memory>
#include <stop_token>
#include <string>

#include "config/settings.h"
#include "coordinator/lease_clock.h"
#include "coordinator/lease_session.h"
#include "coordinator/reconciler.h"
#include "postgres/connection.h"

namespace relay::coordinator {

/// This instance's part in its group: the lease session, the renewals, and the leases that are not
/// those of pipelines (leadership, housekeeping). What may be sent under a renewal counts from
/// before it was asked for. The control thread; `lease` any thread.
class Membership {
 public:
  Membership(const config::Settings& settings, postgres::Connection::Options options,
             std::string worker_id);

  /// Connects to the database; takes part only after `join`.
  Result<void> connect(std::stop_token stop);
  Result<void> join(std::stop_token stop);
  /// The last `join` failed, maybe because another session's locks are in its way.
  bool was_kept_out() const { return kept_out_; }
  /// Every lease is lost: what pipelines send under ends now.
  void lost();
  /// Gives up all leases. To be called when every pipeline has ended.
  void leave();

  /// Of the last `connect`.
  LeaseSession& session() { return *session_; }
  /// What the pipelines of this instance send under.
  Lease& lease() { return clock_.lease(); }

  SteadyClock::time_point next_beat() const { return next_beat_; }
  /// Renews the leases and logs what that tells of the other instances. True: another number of
  /// instances shares the pipelines now.
  Result<bool> beat(std::stop_token stop);
  /// Renews when it is time. False: the leases are lost.
  bool keep();

  /// Takes the lease of the housekeeping; false: another instance has it.
  Result<bool> take_duty(std::stop_token stop);
  bool is_on_duty() const { return on_duty_; }
  /// How the pipelines are shared now. In leader mode, takes the lead where no other instance does.
  Result<Reconciler::Group> group(std::stop_token stop);

 private:
  Result<Renewal> renew(std::stop_token stop);
  /// The lease of a kind of which there is one; true: it is ours now.
  Result<bool> take_the(LeaseKind kind, std::stop_token stop);

  const config::Settings& settings_;
  const postgres::Connection::Options options_;
  const std::string worker_id_;
  LeaseClock clock_;
  std::unique_ptr<LeaseSession> session_;
  SteadyClock::time_point next_beat_{};
  std::size_t live_ = 1;
  bool leads_ = false;
  bool on_duty_ = false;
  bool kept_out_ = false;
};

}  // namespace relay::coordinator
