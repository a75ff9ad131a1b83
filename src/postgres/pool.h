#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "core/mutex.h"
#include "postgres/connection.h"

namespace relay::postgres {

class Pool;

/// A connection borrowed for one operation; goes back when this ends. A broken one, or one left
/// inside a transaction, is closed instead.
class Lease {
 public:
  Lease() = default;
  Lease(Lease&&) noexcept = default;
  Lease& operator=(Lease&& other) noexcept;
  ~Lease();

  Connection* operator->() const { return connection_.get(); }
  Connection& operator*() const { return *connection_; }
  explicit operator bool() const { return connection_ != nullptr; }
  void release();

 private:
  friend class Pool;
  Lease(Pool* pool, std::unique_ptr<Connection> connection)
      : pool_(pool), connection_(std::move(connection)) {}
  Pool* pool_ = nullptr;
  std::unique_ptr<Connection> connection_;
};

/// Somebody who may keep a connection between two operations, for speed.
class Keeper {
 public:
  virtual ~Keeper() = default;
  /// Gives back a connection that has been kept, unused, for longer than `unused`; takes no longer
  /// than until the deadline. Called by any thread, at any time between `Pool::add_keeper` and
  /// `Pool::remove_keeper`.
  virtual void give_back(std::chrono::milliseconds unused, Deadline deadline) = 0;
};

/// How much a pool lacks sessions.
struct Shortage {
  std::size_t size = 0;                       ///< of the pool
  std::chrono::milliseconds longest_wait{0};  ///< of an operation that waits now
  std::optional<Error> refused;               ///< the server refused another session a moment ago
};

/// At most `size` sessions, opened when first needed, lent first come first served, closed after a
/// minute without use. A connection that comes back wakes the first of those who wait and no other,
/// so that a thousand of them cost no more than ten. Any thread. Outlives its leases.
class Pool {
 public:
  Pool(Connection::Options options, std::size_t size);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  Result<Lease> borrow(Deadline, std::stop_token);
  /// True while somebody waits: whoever holds a connection for speed gives it back now.
  bool contended() const;
  std::size_t open_connections() const;
  Shortage shortage() const;
  /// How many sessions ended otherwise than by being closed here. Where this number has changed,
  /// the server may be another one than before, or one that was restored.
  std::uint64_t lost_sessions() const;
  /// Those who keep connections are asked for them when somebody waits, and by `trim`.
  void add_keeper(Keeper* keeper);
  void remove_keeper(Keeper* keeper);
  /// Closes sessions that nobody used for `idle`.
  void trim(std::chrono::milliseconds idle = std::chrono::minutes(1));
  const Connection::Options& options() const { return options_; }

 private:
  friend class Lease;
  void give_back(std::unique_ptr<Connection> connection);
  Result<Lease> open_new(Deadline deadline, std::stop_token stop);
  bool wait_for_turn(Deadline deadline, const std::stop_token& stop) RELAY_REQUIRES(mutex_);
  std::unique_ptr<Connection> take_idle() RELAY_REQUIRES(mutex_);
  void ask_keepers(std::chrono::milliseconds unused, Deadline deadline);
  bool available() const RELAY_REQUIRES(mutex_) { return !idle_.empty() || open_ < size_; }
  void wake_first() RELAY_REQUIRES(mutex_);

  struct Idle {
    std::unique_ptr<Connection> connection;
    SteadyClock::time_point since;
  };
  const Connection::Options options_;
  const std::size_t size_;
  struct Waiter {
    Condition turn;
    SteadyClock::time_point since = SteadyClock::now();
  };

  mutable Mutex mutex_;
  std::vector<Idle> idle_ RELAY_GUARDED_BY(mutex_);
  std::deque<Waiter*> waiting_ RELAY_GUARDED_BY(mutex_);  // each on the stack of its thread
  std::optional<Error> refused_ RELAY_GUARDED_BY(mutex_);
  SteadyClock::time_point refused_at_ RELAY_GUARDED_BY(mutex_){};
  std::size_t open_ RELAY_GUARDED_BY(mutex_) = 0;
  std::uint64_t lost_ RELAY_GUARDED_BY(mutex_) = 0;
  Mutex keepers_mutex_;
  std::vector<Keeper*> keepers_ RELAY_GUARDED_BY(keepers_mutex_);
};

}  // namespace relay::postgres
