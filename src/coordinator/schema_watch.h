#pragma once

#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"
#include "core/mutex.h"
#include "postgres/connection.h"
#include "schema/difference.h"
#include "status/causes.h"

namespace relay::coordinator {

/// Compares the database side with what this program needs: when a session began, when `init` has
/// run, when an error may come from a difference, and each minute. Logs each difference once. Has
/// its own thread, and a session of its own for each look, so that no lease and no pipeline waits
/// for it. The public functions are called by any thread and do not block.
class SchemaWatch {
 public:
  explicit SchemaWatch(postgres::Connection::Options options);
  ~SchemaWatch();

  /// A session with a database side of this program's version has begun.
  void session_began();
  /// `init` has run.
  void installed();
  /// An error of the relay's own database, or of a pipeline. The same one counts again only after a
  /// while.
  void notice(const Error& error);

  /// Why this program must end its work here: the database side became one of another version.
  std::optional<Error> other_version() const;
  /// The problems among the differences; none, and no cause. Warnings are only logged.
  std::optional<status::Sighting> cause() const;

 private:
  void run(std::stop_token stop);
  bool is_due(SteadyClock::time_point now);
  Result<void> look(std::stop_token stop);
  void tell(const std::vector<schema::Difference>& differences);

  const postgres::Connection::Options options_;
  mutable Mutex mutex_;
  bool asked_ RELAY_GUARDED_BY(mutex_) = false;
  std::optional<Error> other_version_ RELAY_GUARDED_BY(mutex_);
  std::optional<status::Sighting> cause_ RELAY_GUARDED_BY(mutex_);
  std::set<std::string> noticed_ RELAY_GUARDED_BY(mutex_);   ///< errors since `forget_`
  SteadyClock::time_point last_ RELAY_GUARDED_BY(mutex_){};  ///< look
  SteadyClock::time_point forget_ RELAY_GUARDED_BY(mutex_){};
  SteadyClock::time_point next_ RELAY_GUARDED_BY(mutex_) = SteadyClock::time_point::max();
  std::set<std::string> told_;  ///< of the thread: the differences that were logged
  std::jthread thread_;
};

}  // namespace relay::coordinator
