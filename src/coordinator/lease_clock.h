#pragma once

#include <chrono>

#include "core/lease.h"

namespace relay::coordinator {

/// Says how long a renewal is good for: how long this instance may hand messages to a sink, by its
/// own clock, which counts while the machine is suspended. Always shorter than until another
/// instance may take over while the lease session lives: the database counts `lease_timeout` from
/// when it wrote the renewal, this clock counts less, and from before it asked for it. The server
/// ends a session of which it hears nothing for five seconds (tcp_keepalives_*, tcp_user_timeout),
/// so no longer lease_timeout counts here. Any thread.
class LeaseClock {
 public:
  explicit LeaseClock(std::chrono::milliseconds lease_timeout);

  /// A renewal that was asked for at `asked` succeeded.
  void renewed(BootClock::time_point asked) { lease_.extend(asked + share_, asked + cut_share_); }
  /// The leases are lost.
  void lost() { lease_.end(); }
  /// What the pipelines of this instance send under.
  Lease& lease() { return lease_; }
  /// How often to renew: several renewals may fail before the lease runs out.
  std::chrono::milliseconds interval() const { return interval_; }

 private:
  std::chrono::milliseconds share_;
  /// Between the two, what was sent is acknowledged, and nothing more is sent.
  std::chrono::milliseconds cut_share_;
  std::chrono::milliseconds interval_;
  Lease lease_;
};

}  // namespace relay::coordinator
