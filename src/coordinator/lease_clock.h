#pragma once

#include <atomic>
#include <chrono>

#include "core/deadline.h"

namespace relay::coordinator {

/// Until when this instance may hand messages to a sink, by its own steady clock. Always earlier
/// than another instance may take over while the lease session lives: the database counts
/// `lease_timeout` from when it wrote the renewal, this clock counts less, and from before it asked
/// for it. The server ends a session of which it hears nothing for five seconds
/// (tcp_keepalives_*, tcp_user_timeout), so no longer lease_timeout counts here. Reads no clock
/// itself. Any thread.
class LeaseClock {
 public:
  explicit LeaseClock(std::chrono::milliseconds lease_timeout);

  /// A renewal that was asked for at `asked` succeeded.
  void renewed(SteadyClock::time_point asked) { until_ = (asked + share_).time_since_epoch(); }
  /// The leases are lost.
  void lost() { until_ = SteadyClock::duration::zero(); }
  bool valid(SteadyClock::time_point now) const { return now.time_since_epoch() < until_.load(); }
  /// How often to renew: several renewals may fail before the lease runs out.
  std::chrono::milliseconds interval() const { return interval_; }

 private:
  std::chrono::milliseconds share_;
  std::chrono::milliseconds interval_;
  std::atomic<SteadyClock::duration> until_{SteadyClock::duration::zero()};
};

}  // namespace relay::coordinator
