#include "coordinator/snapshots.h"

#include <thread>
#include <utility>

namespace relay::coordinator {

namespace {

/// Takes the mutex if that is possible until then. By asking again and again: ThreadSanitizer does
/// not know the timed lock of the steady clock.
bool lock_until(Mutex& mutex, Deadline patience)
    RELAY_THREAD_ANNOTATION(try_acquire_capability(true, mutex))
        RELAY_THREAD_ANNOTATION(no_thread_safety_analysis) {
  while (!mutex.try_lock()) {
    if (patience.passed()) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace

Snapshots::Snapshots(const PipelineTable& table, std::string worker_id, std::string group)
    : table_(table),
      worker_id_(std::move(worker_id)),
      group_(std::move(group)),
      started_(SteadyClock::now()) {
  note_round();
  const MutexLock table_lock(table_.mutex);
  const MutexLock lock(mutex_);
  last_ = read();
}

status::Snapshot Snapshots::take() const {
  constexpr std::chrono::milliseconds kPatience{20};
  const SteadyClock::time_point last_round{SteadyClock::duration(last_round_.load())};
  const auto silence =
      std::chrono::duration_cast<std::chrono::seconds>(SteadyClock::now() - last_round);
  std::optional<status::Snapshot> now;
  if (lock_until(table_.mutex, Deadline::after(kPatience))) {
    const MutexLock held(table_.mutex, std::adopt_lock);
    now = read();
  }
  const MutexLock lock(mutex_);
  if (now) last_ = std::move(*now);
  last_.uptime = std::chrono::duration_cast<std::chrono::seconds>(SteadyClock::now() - started_);
  last_.control_silent = silence;
  return last_;
}

status::Snapshot Snapshots::read() const {
  status::Snapshot snapshot;
  for (const auto& [name, entry] : table_.entries) {
    if (table_.reconciler.at(name).wanted) snapshot.pipelines.push_back(table_.status_of(entry));
  }
  const InstanceState& instance = table_.instance;
  snapshot.database_connected = instance.database_connected;
  snapshot.catalog_read = instance.catalog_read;
  snapshot.database_error = instance.database_error;
  snapshot.blockers = instance.blockers;
  snapshot.causes = instance.causes.of("");
  snapshot.worker_id = worker_id_;
  snapshot.group = group_;
  snapshot.stopping = instance.stopping;
  return snapshot;
}

}  // namespace relay::coordinator
