#include "coordinator/sweep.h"

#include <exception>
#include <random>
#include <utility>

#include "core/backoff.h"
#include "core/log.h"
#include "core/pause.h"
#include "core/shortage.h"
#include "postgres/array.h"

namespace relay::coordinator {

using postgres::Connection;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kOperationTimeout{5000};
/// How often a missing sequence is looked for.
constexpr milliseconds kResolveEvery{1000};
constexpr std::int64_t kGone = -1;
/// A pipeline whose broker does not answer delays the waking of others no longer than this.
constexpr std::chrono::seconds kComesUpWithin{2};

/// The sequences whose value is not the known one. A sequence that was dropped, or that the role
/// may not read, causes no error, which would stop the watch over all others.
constexpr std::string_view kLook =
    "select q.oid, q.value from (select s.oid, s.known, "
    "case when has_sequence_privilege(s.oid, 'usage') or has_sequence_privilege(s.oid, 'select') "
    "then coalesce(pg_sequence_last_value(s.oid), 0) "
    "when has_sequence_privilege(s.oid, 'usage') is null then -1 else s.known end as value "
    "from unnest($1::oid[], $2::bigint[]) s(oid, known) offset 0) q where q.value <> q.known";

/// The sequences that a drop, ALTER SEQUENCE, or another change of the table keeps locked: reading
/// one takes RowExclusiveLock.
constexpr std::string_view kLocked =
    "select l.relation::bigint from pg_locks l where l.locktype = 'relation' "
    "and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') "
    "and l.relation = any($1::oid[])";

/// Reading a sequence takes a lock on it. A lock that another session holds must not delay the
/// others.
constexpr std::string_view kSetUp = "set lock_timeout to 50; listen pgtrickle_outbox_new";

bool is_about_one(const Error& error) {
  return error.code == "55P03" ||  // lock_not_available
         error.code == "XX000";    // dropped while the query waited for its lock
}

/// The sequence of an adopted table is known by its number.
constexpr std::string_view kResolve =
    "select n, coalesce(case when n ~ '^[0-9]+$' then (select c.oid from pg_class c "
    "where c.oid = n::oid and c.relkind = 'S') else to_regclass(n)::oid end::bigint, 0) "
    "from unnest($1::text[]) n";

class SleepingPipeline final : public Watcher {
 public:
  SleepingPipeline(Pipeline& pipeline, std::shared_ptr<Wake> wake)
      : pipeline_(pipeline), wake_(std::move(wake)) {}
  void moved(std::int64_t last_value) override { wake_->announce(last_value); }
  bool asleep() const override { return pipeline_.asleep(); }
  bool waits() override { return asleep() || wake_->was_awaited(); }
  void wake() override {
    woken_at_ = SteadyClock::now();
    pipeline_.wake();
  }
  bool coming_up() const override {
    return SteadyClock::now() - woken_at_ < kComesUpWithin &&
           pipeline_.report().state == PipelineState::starting;
  }

 private:
  SteadyClock::time_point woken_at_{};
  Pipeline& pipeline_;
  const std::shared_ptr<Wake> wake_;
};

}  // namespace

Sweep::Sweep(Connection::Options options)
    : options_(std::move(options)), thread_([this](std::stop_token stop) { run(stop); }) {}

Sweep::~Sweep() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
}

void Sweep::watch(Pipeline& pipeline, const std::string& sequence, std::shared_ptr<Wake> wake) {
  const MutexLock lock(mutex_);
  auto& watcher = watchers_[&pipeline];
  if (watcher) list_.remove(*watcher);
  watcher = std::make_shared<SleepingPipeline>(pipeline, std::move(wake));
  list_.add(sequence, watcher);
  news_ = true;
}

void Sweep::forget(const Pipeline& pipeline) {
  const MutexLock lock(mutex_);
  const auto found = watchers_.find(&pipeline);
  if (found == watchers_.end()) return;
  list_.remove(*found->second);
  watchers_.erase(found);
}

void Sweep::run(std::stop_token stop) {
  Backoff backoff(milliseconds(100), milliseconds(2000), std::random_device{}());
  while (!stop.stop_requested()) {
    Result<void> ended;
    const auto began = SteadyClock::now();
    try {
      ended = session(stop);
    } catch (const std::exception& exception) {
      ended = fail(shortage::error_of(exception, "watching outboxes"));
    }
    if (ended || stop.stop_requested()) return;
    // Meanwhile readers that are awake poll once a second.
    log::failure("sweep_failed", "", shortage::explained(ended.error()));
    if (SteadyClock::now() - began > std::chrono::seconds(10)) backoff.reset();
    pause(Deadline::after(backoff.next(milliseconds(50))), stop);
  }
}

Result<void> Sweep::session(std::stop_token stop) {
  auto opened = Connection::open(options_, stop);
  if (!opened) return fail(opened.error());
  Connection& connection = **opened;
  const auto listening = connection.script(kSetUp, Deadline::after(kOperationTimeout), stop);
  if (!listening) return listening;
  log::recovered("sweep_failed", "");
  {
    const MutexLock lock(mutex_);
    list_.unresolve_all();
  }
  auto moved_at = SteadyClock::now();
  SteadyClock::time_point resolve_at{};
  while (!stop.stop_requested()) {
    const auto now = SteadyClock::now();
    bool news;
    {
      const MutexLock lock(mutex_);
      news = std::exchange(news_, false);
    }
    if (news || now >= resolve_at) {
      resolve_at = now + kResolveEvery;
      if (const auto resolved = resolve(connection, stop); !resolved) return resolved;
    }
    const auto moved = look(connection, stop);
    if (!moved) return fail(moved.error());
    if (*moved) moved_at = now;
    const auto heard =
        connection.notifications(Deadline::after(pause_between_looks(now - moved_at)), stop);
    if (!heard && heard.error().error_class != ErrorClass::cancelled) return fail(heard.error());
  }
  return {};
}

Result<void> Sweep::resolve(Connection& connection, std::stop_token stop) {
  std::vector<postgres::Param> names;
  {
    const MutexLock lock(mutex_);
    for (std::string& name : list_.unresolved()) names.emplace_back(std::move(name));
  }
  if (names.empty()) return {};
  const auto rows = connection.query(kResolve, {postgres::text_array(names)},
                                     Deadline::after(kOperationTimeout), stop);
  if (!rows) return fail(rows.error());
  const MutexLock lock(mutex_);
  for (int row = 0; row < rows->size(); ++row) {
    list_.resolve(std::string(rows->text(row, 0)), rows->integer(row, 1));
  }
  return {};
}

Result<void> Sweep::set_aside(Connection& connection, const WatchList::Question& question,
                              std::stop_token stop) {
  const auto locked =
      connection.query(kLocked, {question.oids}, Deadline::after(kOperationTimeout), stop);
  if (!locked) return fail(locked.error());
  const MutexLock lock(mutex_);
  for (int row = 0; row < locked->size(); ++row) list_.set_aside(locked->integer(row, 0));
  return {};
}

/// True: a sequence moved, or every reader is busy.
Result<bool> Sweep::look(Connection& connection, std::stop_token stop) {
  WatchList::Question question;
  {
    const MutexLock lock(mutex_);
    if (list_.nothing_to_ask()) {
      list_.wake_sleepers();
      return false;
    }
    // Readers of a backlog find new rows by themselves.
    if (!list_.has_waiting()) return true;
    question = list_.question();
  }
  const auto rows = connection.query(kLook, {question.oids, question.known},
                                     Deadline::after(kOperationTimeout), stop);
  if (!rows && connection.ok() && is_about_one(rows.error())) {
    if (const auto done = set_aside(connection, question, stop); !done) return fail(done.error());
    return false;
  }
  if (!rows) return fail(rows.error());
  const MutexLock lock(mutex_);
  for (int row = 0; row < rows->size(); ++row) {
    const std::int64_t oid = rows->integer(row, 0);
    const std::int64_t value = rows->integer(row, 1);
    if (value == kGone) {
      list_.gone(oid);
    } else {
      list_.saw(oid, value);
    }
  }
  list_.wake_sleepers();
  return !rows->empty();
}

}  // namespace relay::coordinator
