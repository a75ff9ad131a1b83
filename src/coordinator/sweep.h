#pragma once

#include <map>
#include <memory>
#include <string>
#include <thread>

#include "connector/wake.h"
#include "coordinator/watch_list.h"
#include "core/mutex.h"
#include "pipeline/pipeline.h"
#include "postgres/connection.h"

namespace relay::coordinator {

/// One thread and one session that watch the sequences of all outboxes in one query, listen for
/// their notifications, and wake the pipelines whose sequence moved. It looks every 1 ms if a
/// sequence moved in the last second, every 5 ms if in the last minute, else every 25 ms; not at
/// all while every reader is busy. An idle pipeline costs its part of this query and nothing else.
class Sweep {
 public:
  explicit Sweep(postgres::Connection::Options options);
  ~Sweep();

  /// Watches `sequence` for a pipeline, in place of the one watched before. Any thread. A pipeline
  /// must be forgotten before it is destroyed.
  void watch(Pipeline& pipeline, const std::string& sequence, std::shared_ptr<Wake> wake);
  void forget(const Pipeline& pipeline);

 private:
  void run(std::stop_token stop);
  Result<void> session(std::stop_token stop);
  Result<void> resolve(postgres::Connection& connection, std::stop_token stop);
  Result<void> set_aside(postgres::Connection& connection, const WatchList::Question& question,
                         std::stop_token stop);
  Result<bool> look(postgres::Connection& connection, std::stop_token stop);

  const postgres::Connection::Options options_;
  Mutex mutex_;
  WatchList list_ RELAY_GUARDED_BY(mutex_);
  std::map<const Pipeline*, std::shared_ptr<Watcher>> watchers_ RELAY_GUARDED_BY(mutex_);
  bool news_ RELAY_GUARDED_BY(mutex_) = false;  ///< a sequence has to be resolved at once
  std::jthread thread_;
};

}  // namespace relay::coordinator
