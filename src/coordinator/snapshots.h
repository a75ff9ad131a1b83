#pragma once

#include <atomic>
#include <string>

#include "coordinator/pipeline_table.h"
#include "core/deadline.h"
#include "core/mutex.h"
#include "status/status.h"

namespace relay::coordinator {

/// Shows the state of the pipelines without waiting for the control thread. While that holds the
/// table's mutex, as when it creates pipelines, the last known state is shown. Any thread.
class Snapshots {
 public:
  Snapshots(const PipelineTable& table, std::string worker_id, std::string group);

  status::Snapshot take() const;
  /// The control thread calls this once a round, to show that it is alive.
  void note_round() { last_round_ = SteadyClock::now().time_since_epoch().count(); }

 private:
  status::Snapshot read() const RELAY_REQUIRES(table_.mutex);

  const PipelineTable& table_;
  const std::string worker_id_;
  const std::string group_;
  const SteadyClock::time_point started_;
  std::atomic<SteadyClock::rep> last_round_;  ///< when the control thread last did something
  mutable Mutex mutex_;
  mutable status::Snapshot last_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay::coordinator
