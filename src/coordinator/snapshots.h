#pragma once

#include <atomic>
#include <string>

#include "coordinator/pipeline_table.h"
#include "core/deadline.h"
#include "core/mutex.h"
#include "status/status.h"

namespace relay::coordinator {

/// Says how things stand, without waiting for the control thread: where that keeps the table to
/// itself, as when it makes pipelines, it is how things stood last. Any thread.
class Snapshots {
 public:
  Snapshots(const PipelineTable& table, std::string worker_id, std::string group);

  status::Snapshot take() const;
  /// The control thread is at work.
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
