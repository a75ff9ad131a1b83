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

/// Whose code the statements run that a connection is borrowed for. Code of users may take long: it
/// gets at most half of a pool's sessions at a time, so that it cannot take all of them.
enum class Code { ours, users };

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
  Lease(Pool* pool, std::unique_ptr<Connection> connection, Code code)
      : pool_(pool), connection_(std::move(connection)), code_(code) {}
  Pool* pool_ = nullptr;
  std::unique_ptr<Connection> connection_;
  Code code_ = Code::ours;
};

/// A user of the pool that may keep a connection between two operations, for speed.
class Keeper {
 public:
  virtual ~Keeper() = default;
  /// What its connections were borrowed for.
  virtual Code code() const { return Code::ours; }
  /// Gives back a connection that has been kept, unused, for longer than `unused`. Returns by the
  /// deadline. Called by any thread, at any time between `Pool::add_keeper` and
  /// `Pool::remove_keeper`.
  virtual void give_back(std::chrono::milliseconds unused, Deadline deadline) = 0;
};

/// Whether a pool has too few sessions.
struct Shortage {
  std::size_t size = 0;  ///< of the pool
  /// An operation of ours waits for longer than a second, or did until a moment ago.
  bool long_wait = false;
  std::size_t for_users = 0;     ///< at most so many sessions run code of users
  bool users_wait_long = false;  ///< as long_wait, of an operation that runs such code
  std::optional<Error> refused;  ///< the server refused another session a moment ago
};

/// At most `size` sessions, opened when first needed, lent first come first served, closed after a
/// minute without use. While as many as may be are lent for code of users, such operations wait,
/// and others go past them. A connection that comes back wakes the first waiting thread only, so
/// that a thousand waiting threads cost no more than ten. Any thread. Outlives its leases.
class Pool {
 public:
  Pool(Connection::Options options, std::size_t size);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  Result<Lease> borrow(Deadline, std::stop_token, Code code = Code::ours);
  /// A thread waits that could go on with a connection which was borrowed for such code: keepers
  /// give theirs back now.
  bool contended(Code code = Code::ours) const;
  std::size_t open_connections() const;
  Shortage shortage() const;
  /// How many sessions were lost rather than closed by this pool. If this number has changed, the
  /// server may be another one than before, or one that was restored.
  std::uint64_t lost_sessions() const;
  /// Keepers are asked for their connections when a thread waits for one, and by `trim`.
  void add_keeper(Keeper* keeper);
  void remove_keeper(Keeper* keeper);
  /// Closes sessions that were not used for `idle`.
  void trim(std::chrono::milliseconds idle = std::chrono::minutes(1));
  const Connection::Options& options() const { return options_; }

 private:
  friend class Lease;
  struct Waiter;
  void give_back(std::unique_ptr<Connection> connection, Code code);
  Result<Lease> open_new(Deadline deadline, std::stop_token stop, Code code);
  bool wait_for_turn(Deadline deadline, const std::stop_token& stop, Code code)
      RELAY_REQUIRES(mutex_);
  std::unique_ptr<Connection> take_idle() RELAY_REQUIRES(mutex_);
  void ask_keepers(std::chrono::milliseconds unused, Deadline deadline);
  bool available() const RELAY_REQUIRES(mutex_) { return !idle_.empty() || open_ < size_; }
  bool may_run(Code code) const RELAY_REQUIRES(mutex_) {
    return code == Code::ours || users_ < for_users_;
  }
  Waiter* next_waiter() const RELAY_REQUIRES(mutex_);
  void wake_next() RELAY_REQUIRES(mutex_);

  struct Idle {
    std::unique_ptr<Connection> connection;
    SteadyClock::time_point since;
  };
  const Connection::Options options_;
  const std::size_t size_;
  const std::size_t for_users_;
  struct Waiter {
    explicit Waiter(Code whose) : code(whose) {}
    const Code code;
    Condition turn;
    SteadyClock::time_point since = SteadyClock::now();
  };

  mutable Mutex mutex_;
  std::vector<Idle> idle_ RELAY_GUARDED_BY(mutex_);
  std::deque<Waiter*> waiting_ RELAY_GUARDED_BY(mutex_);  // each on the stack of its thread
  std::optional<Error> refused_ RELAY_GUARDED_BY(mutex_);
  SteadyClock::time_point refused_at_ RELAY_GUARDED_BY(mutex_){};
  SteadyClock::time_point long_wait_ended_ RELAY_GUARDED_BY(mutex_){};
  SteadyClock::time_point users_long_wait_ended_ RELAY_GUARDED_BY(mutex_){};
  std::size_t open_ RELAY_GUARDED_BY(mutex_) = 0;
  std::size_t users_ RELAY_GUARDED_BY(mutex_) = 0;  // lent for code of users
  std::uint64_t lost_ RELAY_GUARDED_BY(mutex_) = 0;
  Mutex keepers_mutex_;
  std::vector<Keeper*> keepers_ RELAY_GUARDED_BY(keepers_mutex_);
};

}  // namespace relay::postgres
