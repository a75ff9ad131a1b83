#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <stop_token>
#include <string>

#include "core/error.h"
#include "core/mutex.h"
#include "ownership/lease_session.h"
#include "pipeline/pipeline.h"

namespace relay::coordinator {

/// Replays that pipelines have finished, until the database knows it. None is forgotten while the
/// database cannot be written to.
class FinishedReplays {
 public:
  /// The threads of pipelines. Does not block.
  void add(const ReplayRequest& request, const std::optional<Error>& error);
  /// Writes what was added, in its order. One whose row another transaction has locked, and those
  /// behind it, wait for the next call. One thread.
  Result<void> write(ownership::LeaseSession& session, std::stop_token stop);

 private:
  struct Finished {
    std::int64_t id = 0;
    std::string error;  ///< empty: it succeeded
  };
  Mutex mutex_;
  std::deque<Finished> finished_ RELAY_GUARDED_BY(mutex_);
};

}  // namespace relay::coordinator
