#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "outbox/wake.h"
#include "pipeline/pipeline.h"
#include "postgres/connection.h"

namespace relay::coordinator {

/// One thread and one session that watch the sequences of all outboxes in one query, listen for
/// their notifications, and wake the pipelines behind those that moved: every 1 ms while something
/// happened in the last second, 5 ms in the last minute, 25 ms after. An idle pipeline costs its
/// line in this query and nothing else.
class Sweep {
 public:
  explicit Sweep(postgres::Connection::Options options);
  ~Sweep();

  /// Watches `sequence` for a pipeline. Any thread. A pipeline must be forgotten before it ends.
  void watch(Pipeline& pipeline, std::string sequence, std::shared_ptr<outbox::Wake> wake);
  void forget(const Pipeline& pipeline);
  bool watches(const Pipeline& pipeline) const;

 private:
  struct Watcher {
    Pipeline* pipeline;
    std::shared_ptr<outbox::Wake> wake;
    std::int64_t woken_for = 0;  ///< the value for which it was last woken from sleep
  };
  struct Watched {
    std::int64_t oid = 0;
    std::int64_t last_value = 0;
    std::vector<Watcher> watchers;
  };

  void run(std::stop_token stop);
  Result<void> session(std::stop_token stop);
  Result<void> resolve_new(postgres::Connection& connection, std::stop_token stop);
  std::string oids();
  Result<bool> look(postgres::Connection& connection, std::stop_token stop);
  bool announce(std::int64_t oid, std::int64_t last_value);

  const postgres::Connection::Options options_;
  mutable std::mutex mutex_;
  std::map<std::string, Watched> watched_;  // by sequence
  std::vector<std::string> unresolved_;
  std::map<std::int64_t, Watched*> by_oid_;  // of `oids_`
  std::string oids_;                         // the query's parameter; empty: to be made anew
  std::jthread thread_;
};

}  // namespace relay::coordinator
