#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "core/mutex.h"
#include "core/thread_timer.h"

namespace relay {

/// Counts while the machine is suspended, too, which SteadyClock does not.
struct BootClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;
  static time_point now() noexcept;
};

class SocketCutter;

/// Until when this process may send messages. It ends in two steps, both before another instance
/// may take over: at `until` no delivery begins any more, and at `cut` the connections that send
/// messages are closed, even in the middle of a delivery (SocketCutter). Any thread.
class Lease {
 public:
  /// Does not hold until it is extended.
  Lease() = default;
  /// For callers that need no lease: a check of the configuration, a source, a test.
  static Lease& endless();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  void extend(BootClock::time_point until, BootClock::time_point cut);
  /// Both steps are due now.
  void end();

  bool holds(BootClock::time_point now = BootClock::now()) const {
    return now < until_.load(std::memory_order_relaxed);
  }
  /// The connections have been cut: no answer comes any more.
  bool is_cut(BootClock::time_point now = BootClock::now()) const {
    return now >= cut_.load(std::memory_order_relaxed);
  }

 private:
  friend class SocketCutter;

  std::atomic<BootClock::time_point> until_{BootClock::time_point::min()};
  std::atomic<BootClock::time_point> cut_{BootClock::time_point::min()};
  Mutex mutex_;
  std::unordered_set<SocketCutter*> cutters_ RELAY_GUARDED_BY(mutex_);
};

/// Why sending has stopped.
Error lease_over();

/// Cuts a connection when a lease ends, before the thread that writes to it executes another
/// instruction. Looking at the clock before a write cannot do that: a process may be frozen between
/// the look and the write. So a timer of the kernel interrupts the thread: one that ran out while
/// the process was frozen does so before anything else runs in that thread. What the kernel has not
/// sent is dropped, and writing to the socket fails.
///
/// Made by the thread that writes to the socket; destroyed before the socket is closed, by any.
class SocketCutter {
 public:
  /// Transient: the lease is over, or the kernel has no timer to spare. Null for an endless lease.
  static Result<std::unique_ptr<SocketCutter>> make(Lease& lease, int socket);
  ~SocketCutter();
  SocketCutter(const SocketCutter&) = delete;
  SocketCutter& operator=(const SocketCutter&) = delete;

  struct Target;

 private:
  friend class Lease;
  SocketCutter(Lease& lease, Target* target) : lease_(lease), target_(target) {}
  void arm(BootClock::time_point at) const;

  Lease& lease_;
  Target* const target_;
  std::unique_ptr<ThreadTimer> timer_;
};

/// The sockets of a library that opens and closes them through callbacks: each ends with the lease,
/// and there are no new ones without it. Any thread; a socket is opened by the one that writes to
/// it.
class LeasedSockets {
 public:
  explicit LeasedSockets(Lease& lease) : lease_(lease) {}

  /// As socket(2), close-on-exec; -1, with `errno`, also where the lease is over.
  int open(int domain, int type, int protocol);
  /// As close(2).
  int close(int socket);

 private:
  Lease& lease_;
  Mutex mutex_;
  std::unordered_map<int, std::unique_ptr<SocketCutter>> cutters_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay
