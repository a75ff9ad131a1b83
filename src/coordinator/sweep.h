#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "connector/wake.h"
#include "coordinator/watch_list.h"
#include "pipeline/pipeline.h"
#include "postgres/connection.h"

namespace relay::coordinator {

/// One thread and one session that watch the sequences of all outboxes in one query, listen for
/// their notifications, and wake the pipelines behind those that moved: every 1 ms while something
/// happened in the last second, 5 ms in the last minute, 25 ms after; not at all while every reader
/// is busy. An idle pipeline costs its line in this query and nothing else.
class Sweep {
 public:
  explicit Sweep(postgres::Connection::Options options);
  ~Sweep();

  /// Watches `sequence` for a pipeline, in place of what was watched for it. Any thread. A pipeline
  /// must be forgotten before it ends.
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
  std::mutex mutex_;
  WatchList list_;  // guarded, as is what follows
  std::map<const Pipeline*, std::shared_ptr<Watcher>> watchers_;
  bool news_ = false;  // a sequence is to be resolved at once
  std::jthread thread_;
};

}  // namespace relay::coordinator
