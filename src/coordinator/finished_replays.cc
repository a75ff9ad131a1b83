#include "coordinator/finished_replays.h"

#include <iterator>

#include "core/secrets.h"

namespace relay::coordinator {

using ownership::LeaseSession;

namespace {

/// False: another transaction has locked its row, and it is to be tried again.
Result<bool> finish_replay(LeaseSession& session, std::int64_t id, const std::string& error,
                           std::stop_token stop) {
  const auto done = session.query(
      "with free as (select r.id from pgtrickle.relay_replays r where r.id = $1::bigint "
      "for no key update skip locked), "
      "finished as (update pgtrickle.relay_replays r set finished_at = clock_timestamp(), "
      "error = nullif($2, '') from free where r.id = free.id) "
      "select exists (select from free) "
      "or not exists (select from pgtrickle.relay_replays r where r.id = $1::bigint)",
      {std::to_string(id), secrets::masked(error)}, stop);
  if (!done) return fail(done.error());
  return done->boolean(0, 0);
}

}  // namespace

void FinishedReplays::add(const ReplayRequest& request, const std::optional<Error>& error) {
  const MutexLock lock(mutex_);
  finished_.push_back({request.id, error ? error->message : std::string()});
}

Result<void> FinishedReplays::write(LeaseSession& session, std::stop_token stop) {
  std::deque<Finished> finished;
  {
    const MutexLock lock(mutex_);
    finished.swap(finished_);
  }
  while (!finished.empty()) {
    const auto done = finish_replay(session, finished.front().id, finished.front().error, stop);
    if (!done || !*done) {
      const MutexLock lock(mutex_);
      finished_.insert(finished_.begin(), std::make_move_iterator(finished.begin()),
                       std::make_move_iterator(finished.end()));
      if (!done) return fail(done.error());
      return {};
    }
    finished.pop_front();
  }
  return {};
}

}  // namespace relay::coordinator
