#pragma once

#include <chrono>

#include "core/lease.h"

namespace relay::ownership {

/// Says how long this instance may hand messages to a sink after a renewal, by its own clock, which
/// counts while the machine is suspended. This always ends before another instance may take over.
/// While the lease session lives, the database counts `lease_timeout` from the moment at which it
/// wrote the renewal; this clock counts less, and from before the renewal was asked for. The server
/// ends a session that is silent for five seconds (tcp_keepalives_*, tcp_user_timeout), so a longer
/// lease_timeout counts as five seconds here. Any thread.
class LeaseClock {
 public:
  explicit LeaseClock(std::chrono::milliseconds lease_timeout);

  /// A renewal that was asked for at `asked` succeeded.
  void renewed(BootClock::time_point asked) { lease_.extend(asked + share_, asked + cut_share_); }
  /// The leases are lost.
  void lost() { lease_.end(); }
  /// While it holds, the pipelines of this instance may send.
  Lease& lease() { return lease_; }
  /// How often to renew: several renewals may fail before the lease runs out.
  std::chrono::milliseconds interval() const { return interval_; }

 private:
  std::chrono::milliseconds share_;
  /// Between share_ and cut_share_ nothing more is sent, and what was sent is acknowledged.
  std::chrono::milliseconds cut_share_;
  std::chrono::milliseconds interval_;
  Lease lease_;
};

}  // namespace relay::ownership
