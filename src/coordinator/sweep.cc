#include "coordinator/sweep.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <random>

#include "core/backoff.h"
#include "core/log.h"

namespace relay::coordinator {

using postgres::Connection;
using postgres::Rows;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kOperationTimeout{5000};

/// What a sequence's value and a dropped or forbidden sequence give, without an error that would
/// stop the watch over all others.
constexpr std::string_view kLook =
    "select c.oid, pg_sequence_last_value(c.oid) from unnest($1::oid[]) s(oid) "
    "join pg_class c on c.oid = s.oid and c.relkind = 'S' "
    "where has_sequence_privilege(c.oid, 'usage') or has_sequence_privilege(c.oid, 'select')";

milliseconds interval_after(SteadyClock::duration quiet) {
  if (quiet < std::chrono::seconds(1)) return milliseconds(1);
  if (quiet < std::chrono::minutes(1)) return milliseconds(5);
  return milliseconds(25);
}

}  // namespace

Sweep::Sweep(Connection::Options options)
    : options_(std::move(options)), thread_([this](std::stop_token stop) { run(stop); }) {}

Sweep::~Sweep() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
}

void Sweep::watch(Pipeline& pipeline, std::string sequence, std::shared_ptr<outbox::Wake> wake) {
  const std::lock_guard lock(mutex_);
  auto& watched = watched_[sequence];
  if (watched.last_value > 0) wake->announce(watched.last_value);
  watched.watchers.push_back({&pipeline, std::move(wake), 0});
  if (watched.oid == 0) unresolved_.push_back(std::move(sequence));
}

void Sweep::forget(const Pipeline& pipeline) {
  const std::lock_guard lock(mutex_);
  for (auto it = watched_.begin(); it != watched_.end();) {
    std::erase_if(it->second.watchers,
                  [&](const Watcher& watcher) { return watcher.pipeline == &pipeline; });
    it = it->second.watchers.empty() ? watched_.erase(it) : std::next(it);
  }
  oids_.clear();
}

bool Sweep::watches(const Pipeline& pipeline) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [sequence, watched] : watched_) {
    for (const Watcher& watcher : watched.watchers) {
      if (watcher.pipeline == &pipeline) return true;
    }
  }
  return false;
}

void Sweep::run(std::stop_token stop) {
  Backoff pause(milliseconds(100), milliseconds(2000), std::random_device{}());
  while (!stop.stop_requested()) {
    Result<void> ended;
    try {
      ended = session(stop);
    } catch (const std::exception& exception) {
      ended = fail(ErrorClass::transient, "internal", exception.what());
    }
    if (ended || stop.stop_requested()) return;
    // Readers look for themselves once a second meanwhile: nothing waits for ever.
    log::failure("sweep_failed", "", ended.error());
    std::mutex idle;
    std::unique_lock lock(idle);
    std::condition_variable_any().wait_for(lock, stop, pause.next(milliseconds(50)),
                                           [] { return false; });
  }
}

Result<void> Sweep::session(std::stop_token stop) {
  auto opened = Connection::open(options_, stop);
  if (!opened) return fail(opened.error());
  Connection& connection = **opened;
  const auto listening =
      connection.script("listen pgtrickle_outbox_new", Deadline::after(kOperationTimeout), stop);
  if (!listening) return listening;
  log::recovered("sweep_failed", "");
  {
    const std::lock_guard lock(mutex_);
    unresolved_.clear();
    for (auto& [sequence, watched] : watched_) unresolved_.push_back(sequence);
    oids_.clear();
  }
  auto moved_at = SteadyClock::now();
  while (!stop.stop_requested()) {
    if (const auto resolved = resolve_new(connection, stop); !resolved) return resolved;
    const auto moved = look(connection, stop);
    if (!moved) return fail(moved.error());
    if (*moved) moved_at = SteadyClock::now();
    const auto pause = interval_after(SteadyClock::now() - moved_at);
    const auto heard = connection.notifications(Deadline::after(pause), stop);
    if (!heard && heard.error().error_class != ErrorClass::cancelled) return fail(heard.error());
  }
  return {};
}

Result<void> Sweep::resolve_new(Connection& connection, std::stop_token stop) {
  std::vector<std::string> names;
  {
    const std::lock_guard lock(mutex_);
    if (unresolved_.empty()) return {};
    names.swap(unresolved_);
  }
  for (const std::string& name : names) {
    const auto rows = connection.query("select coalesce(to_regclass($1)::oid::bigint, 0)", {name},
                                       Deadline::after(kOperationTimeout), stop);
    if (!rows) return fail(rows.error());
    const std::lock_guard lock(mutex_);
    const auto found = watched_.find(name);
    if (found != watched_.end()) found->second.oid = rows->integer(0, 0);
    oids_.clear();
  }
  return {};
}

std::string Sweep::oids() {
  const std::lock_guard lock(mutex_);
  if (!oids_.empty()) return oids_;
  by_oid_.clear();
  oids_ = "{";
  for (auto& [sequence, watched] : watched_) {
    if (watched.oid == 0) continue;
    by_oid_[watched.oid] = &watched;
    if (oids_.size() > 1) oids_ += ',';
    oids_ += std::to_string(watched.oid);
  }
  oids_ += '}';
  return oids_;
}

Result<bool> Sweep::look(Connection& connection, std::stop_token stop) {
  const std::string oids = this->oids();
  if (oids.size() == 2) return false;
  const auto rows = connection.query(kLook, {oids}, Deadline::after(kOperationTimeout), stop);
  if (!rows) return fail(rows.error());
  bool moved = false;
  for (int row = 0; row < rows->size(); ++row) {
    moved = announce(rows->integer(row, 0), rows->integer(row, 1)) || moved;
  }
  return moved;
}

bool Sweep::announce(std::int64_t oid, std::int64_t last_value) {
  const std::lock_guard lock(mutex_);
  const auto found = oids_.empty() ? by_oid_.end() : by_oid_.find(oid);
  if (found == by_oid_.end()) return false;
  Watched& watched = *found->second;
  const bool moved = watched.last_value != last_value;
  watched.last_value = last_value;
  for (Watcher& watcher : watched.watchers) {
    if (moved) watcher.wake->announce(last_value);
    // A pipeline may fall asleep in the moment of the announcement: so this looks each time.
    if (last_value > watcher.woken_for && watcher.pipeline->asleep()) {
      watcher.woken_for = last_value;
      watcher.pipeline->wake();
    }
  }
  return moved;
}

}  // namespace relay::coordinator
