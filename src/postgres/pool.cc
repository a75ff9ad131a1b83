#include "postgres/pool.h"

#include <fmt/core.h>

#include <algorithm>
#include <exception>
#include <utility>

namespace relay::postgres {

namespace {

constexpr std::string_view kNoSessions = "53300";  // too_many_connections
/// The longest time that a pipeline waits before it tries again.
constexpr std::chrono::seconds kRefusalCounts{15};
constexpr std::chrono::seconds kLongWait{1};
/// Operations that wait in turns leave moments in which none has waited for long.
constexpr std::chrono::seconds kLongWaitCounts{4};

Error not_granted(std::size_t size, std::size_t for_users, Code code, bool stopped) {
  if (stopped) {
    return {ErrorClass::cancelled, "stopped", "stopped while waiting for a connection", "", {}};
  }
  if (code == Code::users) {
    return {ErrorClass::transient,
            "pool_exhausted",
            fmt::format("none of the {} connections of the pool that may run code of table owners "
                        "became free in time",
                        for_users),
            "mend the tables that take long to read (slow_read in /health), or raise pool_size",
            {}};
  }
  return {ErrorClass::transient,
          "pool_exhausted",
          fmt::format("none of the {} connections of the pool became free in time", size),
          "raise pool_size, or run fewer pipelines on one instance",
          {}};
}

}  // namespace

Lease& Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    release();
    pool_ = std::exchange(other.pool_, nullptr);
    connection_ = std::move(other.connection_);
    code_ = other.code_;
  }
  return *this;
}

Lease::~Lease() {
  release();
}

void Lease::release() {
  if (connection_) pool_->give_back(std::move(connection_), code_);
}

Pool::Pool(Connection::Options options, std::size_t size)
    : options_(std::move(options)),
      size_(std::max<std::size_t>(size, 1)),
      for_users_(std::max<std::size_t>(size_ / 2, 1)) {
  idle_.reserve(size_);  // a connection comes back although there is no memory
}

Pool::~Pool() = default;

Result<Lease> Pool::borrow(Deadline deadline, std::stop_token stop, Code code) {
  {
    const MutexLock lock(mutex_);
    const bool must_wait = next_waiter() != nullptr || !available() || !may_run(code);
    if (must_wait && !wait_for_turn(deadline, stop, code)) {
      wake_next();
      return fail(not_granted(size_, for_users_, code, stop.stop_requested()));
    }
    auto connection = take_idle();
    if (!connection) ++open_;
    if (code == Code::users) ++users_;
    // There may be room for the next waiting thread as well.
    wake_next();
    if (connection) return Lease(this, std::move(connection), code);
  }
  return open_new(deadline, std::move(stop), code);
}

/// False: the deadline has passed, or a stop was asked for.
bool Pool::wait_for_turn(Deadline deadline, const std::stop_token& stop, Code code) {
  Waiter self(code);
  waiting_.push_back(&self);
  if (!available() || !may_run(code)) {
    const MutexUnlock unlock(mutex_);
    ask_keepers({}, deadline);
  }
  const bool granted = self.turn.wait_until(
      mutex_, stop, deadline.at(), [&]() RELAY_REQUIRES(mutex_) { return next_waiter() == &self; });
  std::erase(waiting_, &self);
  if (const auto now = SteadyClock::now(); now - self.since > kLongWait) {
    (code == Code::ours ? long_wait_ended_ : users_long_wait_ended_) = now;
  }
  return granted;
}

/// Opens the session that `borrow` has counted. It counts no longer if it is not opened.
Result<Lease> Pool::open_new(Deadline deadline, std::stop_token stop, Code code) {
  struct Counted {
    Pool& pool;
    const Code code;
    bool opened = false;

    ~Counted() {
      if (opened) return;
      const MutexLock lock(pool.mutex_);
      --pool.open_;
      if (code == Code::users) --pool.users_;
      pool.wake_next();
    }
  } counted{*this, code};
  auto options = options_;
  options.connect_timeout = std::min(options.connect_timeout, deadline.left());
  auto opened = Connection::open(options, std::move(stop));
  const MutexLock lock(mutex_);
  if (opened) {
    refused_.reset();
    counted.opened = true;
    return Lease(this, std::move(*opened), code);
  }
  if (opened.error().code.starts_with(kNoSessions)) {
    refused_ = opened.error();
    refused_at_ = SteadyClock::now();
  }
  return fail(std::move(opened.error()));
}

/// The thread whose turn it is; null: none that waits can go on.
Pool::Waiter* Pool::next_waiter() const {
  if (!available()) return nullptr;
  for (Waiter* const waiter : waiting_) {
    if (may_run(waiter->code)) return waiter;
  }
  return nullptr;
}

void Pool::wake_next() {
  if (Waiter* const next = next_waiter()) next->turn.notify_one();
}

/// The most recently used connection that is still alive.
std::unique_ptr<Connection> Pool::take_idle() {
  while (!idle_.empty()) {
    auto connection = std::move(idle_.back().connection);
    idle_.pop_back();
    if (connection->still_there()) return connection;
    --open_;
    ++lost_;
  }
  return nullptr;
}

void Pool::give_back(std::unique_ptr<Connection> connection, Code code) {
  const bool lost = !connection->ok();
  if (lost || connection->in_transaction()) connection.reset();
  if (connection) connection->drop_notifications();
  const MutexLock lock(mutex_);
  if (lost) ++lost_;
  if (code == Code::users) --users_;
  if (connection) {
    idle_.push_back({std::move(connection), SteadyClock::now()});
  } else {
    --open_;
  }
  wake_next();
}

void Pool::add_keeper(Keeper* keeper) {
  const MutexLock lock(keepers_mutex_);
  keepers_.push_back(keeper);
}

void Pool::remove_keeper(Keeper* keeper) {
  const MutexLock lock(keepers_mutex_);
  std::erase(keepers_, keeper);
}

/// One thread asks at a time. A keeper that it has asked already sees the need by `contended`.
void Pool::ask_keepers(std::chrono::milliseconds unused, Deadline deadline) {
  if (!keepers_mutex_.try_lock()) return;
  const MutexLock lock(keepers_mutex_, std::adopt_lock);
  for (Keeper* keeper : keepers_) {
    if (deadline.passed()) return;
    if (unused.count() == 0 && !contended(keeper->code())) continue;
    try {
      keeper->give_back(unused, deadline);
    } catch (const std::exception&) {
      // Without memory a statement may not be ended in order; its connection is closed then.
    }
  }
}

std::uint64_t Pool::lost_sessions() const {
  const MutexLock lock(mutex_);
  return lost_;
}

bool Pool::contended(Code code) const {
  const MutexLock lock(mutex_);
  if (code == Code::users) return !waiting_.empty();
  for (const Waiter* waiter : waiting_) {
    if (may_run(waiter->code)) return true;
  }
  return false;
}

std::size_t Pool::open_connections() const {
  const MutexLock lock(mutex_);
  return open_;
}

Shortage Pool::shortage() const {
  const MutexLock lock(mutex_);
  const auto now = SteadyClock::now();
  Shortage shortage;
  shortage.size = size_;
  shortage.for_users = for_users_;
  shortage.long_wait = now - long_wait_ended_ < kLongWaitCounts;
  shortage.users_wait_long = now - users_long_wait_ended_ < kLongWaitCounts;
  for (const Waiter* waiter : waiting_) {
    if (now - waiter->since <= kLongWait) continue;
    (waiter->code == Code::ours ? shortage.long_wait : shortage.users_wait_long) = true;
  }
  if (now - refused_at_ < kRefusalCounts) shortage.refused = refused_;
  return shortage;
}

void Pool::trim(std::chrono::milliseconds idle) {
  // A statement whose rows are not read to the end keeps the server from cleaning up.
  constexpr std::chrono::seconds kKept{1};
  ask_keepers(kKept, Deadline::after(kKept));
  // For threads that began to wait meanwhile.
  if (contended(Code::users)) ask_keepers({}, Deadline::after(kKept));
  std::vector<Idle> closing;
  closing.reserve(size_);
  {
    const MutexLock lock(mutex_);
    const auto before = SteadyClock::now() - idle;
    const auto unused = std::stable_partition(idle_.begin(), idle_.end(),
                                              [&](const Idle& one) { return one.since > before; });
    std::move(unused, idle_.end(), std::back_inserter(closing));
    idle_.erase(unused, idle_.end());
    open_ -= closing.size();
    wake_next();
  }
}

}  // namespace relay::postgres
