#include "coordinator/housekeeper.h"

#include <fmt/core.h>

#include <algorithm>
#include <exception>

#include "core/log.h"
#include "core/pause.h"
#include "core/shortage.h"

namespace relay::coordinator {

using std::chrono::milliseconds;

namespace {

constexpr int kRefreshers = 2;
constexpr milliseconds kRefreshEvery{100};
constexpr milliseconds kUpkeepEvery{10000};
/// How often it looks whether triggers of outboxes were switched, as a full refresh of the
/// pg_trickle extension does it.
constexpr milliseconds kWatchEvery{1000};
constexpr milliseconds kAfterTrouble{2000};
constexpr milliseconds kBorrowTimeout{5000};
constexpr milliseconds kStatementTimeout{60000};
/// A refresh takes as long as its query takes.
constexpr milliseconds kRefreshTimeout{std::chrono::hours(1)};

}  // namespace

Housekeeper::Housekeeper(postgres::Pool& pool, milliseconds stalled_after)
    : pool_(pool), stalled_after_(stalled_after) {
  for (int i = 0; i < kRefreshers; ++i) {
    threads_.emplace_back([this](std::stop_token stop) { run_refreshes(stop); });
  }
  threads_.emplace_back([this](std::stop_token stop) { run_upkeep(stop); });
}

Housekeeper::~Housekeeper() {
  for (auto& thread : threads_) thread.request_stop();
  threads_.clear();
}

bool Housekeeper::claim(const std::string& table) {
  const MutexLock lock(mutex_);
  if (std::find(refreshing_.begin(), refreshing_.end(), table) != refreshing_.end()) return false;
  refreshing_.push_back(table);
  return true;
}

void Housekeeper::let_go(const std::string& table) {
  const MutexLock lock(mutex_);
  std::erase(refreshing_, table);
}

void Housekeeper::run_refreshes(std::stop_token stop) {
  milliseconds wait = kRefreshEvery;
  while (pause(Deadline::after(wait), stop)) {
    wait = kRefreshEvery;
    if (!on_duty_) continue;
    Result<void> done;
    try {
      done = refresh_due(stop);
    } catch (const std::exception& exception) {
      done = fail(shortage::error_of(exception, "refreshing stream tables"));
    }
    if (done) {
      log::recovered("stream_tables", "");
    } else if (done.error().error_class != ErrorClass::cancelled) {
      log::failure("stream_tables", "", shortage::explained(done.error()));
      wait = kAfterTrouble;
    }
  }
}

Result<void> Housekeeper::refresh_due(std::stop_token stop) {
  auto lease = pool_.borrow(Deadline::after(kBorrowTimeout), stop);
  if (!lease) return fail(lease.error());
  const auto due = (*lease)->query("select name from pgtrickle.stream_tables_due()", {},
                                   Deadline::after(kStatementTimeout), stop);
  if (!due) return fail(due.error());
  for (int row = 0; row < due->size() && !stop.stop_requested(); ++row) {
    const std::string name(due->text(row, 0));
    if (!claim(name)) continue;
    const auto refreshed = refresh(**lease, name, stop);
    let_go(name);
    if (!refreshed) return fail(refreshed.error());
  }
  return {};
}

/// A query that fails is recorded in the table's history and suspends that table after three
/// failures; the other tables are refreshed. The coordinator reports it.
Result<void> Housekeeper::refresh(postgres::Connection& connection, const std::string& name,
                                  std::stop_token stop) {
  const auto refreshed = connection.query(
      "select j ->> 'action' = 'FAILED' from pgtrickle.relay_refresh_stream_table($1) j", {name},
      Deadline::after(kRefreshTimeout), stop);
  if (!refreshed && !connection.ok()) return fail(refreshed.error());
  if (!refreshed) {
    log::failure("refresh_failed", name, refreshed.error());
  } else if (!refreshed->boolean(0, 0)) {
    log::recovered("refresh_failed", name);
  }
  // The query belongs to the table's creator: its effects on the session must not reach the next.
  return connection.renew(pool_.options(), Deadline::after(kStatementTimeout), stop);
}

void Housekeeper::run_upkeep(std::stop_token stop) {
  milliseconds wait{0};
  auto due = SteadyClock::now();
  std::optional<std::string> seen;
  while (pause(Deadline::after(wait), stop)) {
    if (!on_duty_) {
      wait = milliseconds(500);
      due = SteadyClock::now();
      keep_session_ready(stop);
      continue;
    }
    wait = kWatchEvery;
    const bool whole = SteadyClock::now() >= due;
    Result<bool> more = false;
    try {
      const auto watched = watch_capture(seen, stop);
      if (whole) {
        more = upkeep(stop);
      } else if (!watched) {
        more = fail(watched.error());
      }
    } catch (const std::exception& exception) {
      more = fail(shortage::error_of(exception, "housekeeping"));
    }
    if (more) {
      log::recovered("housekeeping", "");
      if (whole) due = SteadyClock::now() + kUpkeepEvery;
      if (*more) {
        wait = milliseconds(500);
        due = SteadyClock::now();
      }
    } else if (more.error().error_class != ErrorClass::cancelled) {
      log::failure("housekeeping", "", shortage::explained(more.error()));
      wait = kUpkeepEvery;
    }
  }
}

/// Lets upkeep look at once where triggers of outboxes were switched. `seen` is what it could not
/// set right then.
Result<void> Housekeeper::watch_capture(std::optional<std::string>& seen, std::stop_token stop) {
  auto lease = pool_.borrow(Deadline::after(kBorrowTimeout), stop);
  if (!lease) return fail(lease.error());
  const auto moved = (*lease)->query("select pgtrickle.relay_watch_capture($1)", {seen},
                                     Deadline::after(kStatementTimeout), stop);
  if (!moved) return fail(moved.error());
  seen.reset();
  if (!moved->is_null(0, 0)) seen = std::string(moved->text(0, 0));
  return {};
}

/// A standby keeps a session open that has planned the first query of a takeover: opening a session
/// at the takeover would take a good part of the time that a pipeline has no owner. A failure is
/// ignored, because the coordinator's own session reports the same one.
void Housekeeper::keep_session_ready(std::stop_token stop) {
  if (pool_.open_connections() > 0) return;
  auto lease = pool_.borrow(Deadline::after(kBorrowTimeout), stop);
  if (!lease) return;
  (void)(*lease)->query("select from pgtrickle.relay_pipeline_outbox('', '', '')", {},
                        Deadline::after(kBorrowTimeout), stop);
}

/// Does one batch. True: there is more to do at once.
Result<bool> Housekeeper::upkeep(std::stop_token stop) {
  auto lease = pool_.borrow(Deadline::after(kBorrowTimeout), stop);
  if (!lease) return fail(lease.error());
  // Not as an argument: the database side may be that of an earlier version.
  const auto set = (*lease)->query("select set_config('pgtrickle.stalled_after', $1, false)",
                                   {fmt::format("{} ms", stalled_after_.count())},
                                   Deadline::after(kStatementTimeout), stop);
  if (!set) return fail(set.error());
  const auto done = (*lease)->query(
      "select coalesce((j ->> 'more')::boolean, false), nullif(j -> 'lost', '[]'), "
      "nullif(j -> 'warnings', '[]'), nullif(j -> 'errors', '[]') "
      "from pgtrickle.relay_housekeeping() j",
      {}, Deadline::after(kStatementTimeout), stop);
  if (!done) return fail(done.error());
  constexpr std::string_view kHolders = "pgtrickle.outbox_status(name) says who holds rows back";
  struct Finding {
    int column;
    std::string_view event;
    std::string_view remedy;
  };
  for (const auto& [column, event, remedy] :
       {Finding{1, "rows_lost", kHolders}, Finding{2, "retention", kHolders},
        Finding{3, "upkeep_failed",
                "it is tried again; until then nothing old is deleted there"}}) {
    if (done->is_null(0, column)) continue;
    log::failure(event, "",
                 Error{ErrorClass::misconfigured,
                       std::string(event),
                       std::string(done->text(0, column)),
                       std::string(remedy),
                       {}});
  }
  return done->boolean(0, 0);
}

}  // namespace relay::coordinator
