#include "coordinator/coordinator.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <exception>
#include <random>
#include <utility>

#include "coordinator/status_queries.h"
#include "core/backoff.h"
#include "core/host_name.h"
#include "core/log.h"
#include "core/pause.h"
#include "core/shortage.h"
#include "schema/installed.h"
#include "state/missing_schema.h"

namespace relay::coordinator {

using ownership::LeaseSession;
using postgres::Connection;
using std::chrono::milliseconds;

namespace {

std::string make_worker_id() {
  std::random_device random;
  return fmt::format("{}-{}-{:08x}", host_name(), ::getpid(), random());
}

Connection::Options connection_options(const config::Settings& settings, std::string_view name,
                                       bool dedicated) {
  Connection::Options options;
  options.url = settings.postgres_url;
  options.read_url = settings.read_postgres_url;
  options.application_name = name;
  options.keepalive = dedicated;
  return options;
}

}  // namespace

Coordinator::Coordinator(config::Settings settings, const Registry& registry, Metrics& metrics,
                         FileLoader load_file)
    : settings_(std::move(settings)),
      pool_(connection_options(settings_, "pgtrickle-relay", false),
            static_cast<std::size_t>(settings_.pool_size)),
      workshop_{registry, pool_, metrics, settings_.relay_group_id, make_worker_id()},
      membership_({.connection = connection_options(settings_, "pgtrickle-relay leases", true),
                   .names = {.prefix = "pgtrickle.relay_", .channel = "pgtrickle_relay_config"},
                   .group = settings_.relay_group_id,
                   .worker_id = workshop_.worker_id,
                   .lease_timeout = settings_.lease_timeout}),
      role_(membership_, settings_.ha_mode == "leader"),
      catalog_(registry.catalogue(), settings_.access, std::move(load_file)),
      snapshots_(table_, workshop_.worker_id, settings_.relay_group_id),
      observer_(table_, registry, pool_, metrics, settings.slots) {}

Coordinator::~Coordinator() {
  abort();
  stop();
}

std::vector<status::DeadLetters> Coordinator::dead_letters() {
  // The pool lives as long as this.
  return {{std::shared_ptr<postgres::Pool>(std::shared_ptr<void>(), &pool_), "pgtrickle.relay_dlq",
           ""}};
}

void Coordinator::start() {
  sweep_ = std::make_unique<Sweep>(connection_options(settings_, "pgtrickle-relay sweep", true));
  housekeeper_ = std::make_unique<Housekeeper>(pool_, settings_.stalled_after);
  schema_ =
      std::make_unique<SchemaWatch>(connection_options(settings_, "pgtrickle-relay schema", false));
  runner_ = std::make_unique<PipelineRunner>(table_, workshop_, *sweep_, hooks(),
                                             settings_.drain_timeout);
  thread_ = std::jthread([this](std::stop_token stop) { run(stop); });
}

void Coordinator::stop() {
  if (!thread_.joinable()) return;
  {
    const MutexLock lock(table_.mutex);
    table_.instance.stopping = true;
  }
  housekeeper_->set_on_duty(false);
  thread_.request_stop();
  thread_.join();
  runner_.reset();
  schema_.reset();
  housekeeper_.reset();
  sweep_.reset();
}

void Coordinator::reload() {
  catalog_.reload();
  poked_ = true;
}

/// Called by the threads of pipelines while others are joined: they touch nothing that the table's
/// mutex guards.
PipelineHooks Coordinator::hooks() {
  PipelineHooks hooks;
  hooks.lease = &membership_.lease();
  hooks.replay_finished = [this](const ReplayRequest& request, const std::optional<Error>& error) {
    replays_.add(request, error);
    poked_ = true;
  };
  hooks.source_opened = [this] { poked_ = true; };
  return hooks;
}

void Coordinator::run(std::stop_token stop) {
  Backoff backoff(milliseconds(100), milliseconds(2000), std::random_device{}());
  while (!stop.stop_requested()) {
    snapshots_.note_round();
    const auto began = SteadyClock::now();
    Result<void> ended;
    try {
      ended = session(stop);
    } catch (const std::exception& exception) {
      ended = fail(shortage::error_of(exception, "controlling the pipelines"));
    }
    if (stop.stop_requested()) break;
    if (ended) continue;
    const Error error = shortage::explained(state::explain_missing_schema(ended.error()));
    schema_->notice(error);
    bool served = false;
    {
      const MutexLock lock(table_.mutex);
      served = table_.instance.database_connected;
    }
    log::failure("database", "", error);
    lose_everything(error);
    if (served) backoff.reset();
    // A session that served for a while was often ended alone: the next one can be had at once.
    if (served && SteadyClock::now() - began > std::chrono::seconds(1)) continue;
    pause(Deadline::after(backoff.next(milliseconds(100))), stop);
  }
  end_everything(Deadline::after(settings_.drain_timeout));
}

/// The life of one lease session: until it is lost, or a stop is asked for.
Result<void> Coordinator::session(std::stop_token stop) {
  if (const auto connected = membership_.connect(stop); !connected) return connected;
  if (const auto known = schema::refuse_other_version(
          membership_.session().connection(), Deadline::after(LeaseSession::kTimeout), stop);
      !known) {
    return known;
  }
  // From here on a stop interrupts no statement: that would end the session, and the leases with
  // it, while pipelines still finish their work.
  if (membership_.was_kept_out()) {  // health names the session whose locks were in the way
    const auto looked = observer_.look_for_blockers(membership_.session(), {});
    if (!looked) return looked;
  }
  if (const auto joined = membership_.join({}); !joined) return joined;
  schema_->session_began();
  next_look_ = {};
  observer_.start_over();
  catalog_.start_over();
  while (!stop.stop_requested()) {
    const auto done = round({});
    if (!done && !membership_.session().ok()) return done;
    note_database(done);
    if (const auto other = schema_->other_version()) return fail(*other);
    if (const auto waited = wait_for_change(stop); !waited) return waited;
  }
  return {};
}

/// The database answers; what it says of the last round.
void Coordinator::note_database(const Result<void>& round) {
  const auto error =
      round ? std::nullopt : std::optional(state::explain_missing_schema(round.error()));
  {
    const MutexLock lock(table_.mutex);
    table_.instance.database_connected = true;
    table_.instance.database_error = error;
  }
  if (error) {
    schema_->notice(*error);
    log::failure("database", "", *error);
  } else {
    log::recovered("database", "");
  }
}

Result<void> Coordinator::round(std::stop_token stop) {
  LeaseSession& session = membership_.session();
  const auto now = SteadyClock::now();
  const bool beats = now >= membership_.next_beat();
  if (beats) {
    const auto renewal = membership_.beat(stop);
    if (!renewal) return fail(renewal.error());
    if (role_.regroup(*renewal)) next_look_ = {};
  }
  if (const auto done = release(runner_->settle_ended(), stop); !done) return done;
  if (now >= next_look_ || catalog_.reload_is_due()) {
    const auto usual = now + settings_.discovery_interval;
    next_look_ = std::min(usual, membership_.next_beat());  // if this attempt fails
    if (const auto done = follow_changes(stop); !done) return done;
    next_look_ = usual;
  }
  if (runner_->start_due()) catalog_.resolve_again();
  if (beats) {
    if (const auto done = take_duty(stop); !done) return done;
  }
  if (const auto done = replays_.write(session, stop); !done) return done;
  if (const auto done = observer_.measure(session, now, stop); !done) return done;
  if (observer_.look_for_causes(role_.is_on_duty(), *schema_)) catalog_.resolve_again();
  return observer_.write_statuses(session, stop);
}

/// Does the housekeeping where no other instance does.
Result<void> Coordinator::take_duty(std::stop_token stop) {
  if (role_.is_on_duty()) return {};
  const auto taken = role_.take_duty(std::move(stop));
  if (!taken) return fail(taken.error());
  housekeeper_->set_on_duty(*taken);
  return {};
}

/// Gives up the leases of pipelines that have ended.
Result<void> Coordinator::release(const Reconciler::Leaving& leaving, std::stop_token stop) {
  LeaseSession& session = membership_.session();
  const auto released = session.release(kPipelineLease, leaving.release, stop);
  if (!released) return released;
  return end_status(session, leaving.removed, stop);
}

Result<void> Coordinator::follow_changes(std::stop_token stop) {
  LeaseSession& session = membership_.session();
  auto configuration = catalog_.configuration(session, stop);
  if (!configuration) return fail(configuration.error());
  if (*configuration) runner_->follow(std::move(**configuration));
  if (const auto done = balance(stop); !done) return done;
  auto requests = catalog_.requests(session, stop);
  if (!requests) return fail(requests.error());
  if (*requests) runner_->apply(std::move(**requests));
  return {};
}

/// Takes leases up to this instance's share, and hands over what is beyond it.
Result<void> Coordinator::balance(std::stop_token stop) {
  const auto group = role_.group(stop);
  if (!group) return fail(group.error());
  const auto exchange = runner_->balance(*group);
  const auto taken =
      membership_.session().take(kPipelineLease, exchange.free_to_take, exchange.limit, stop);
  if (!taken) return fail(taken.error());
  runner_->took(*taken);
  if (!taken->empty()) catalog_.expect_requests();
  return {};
}

Result<void> Coordinator::wait_for_change(std::stop_token stop) {
  // The session's socket is where news arrive; pokes from other threads are seen within the slice.
  constexpr milliseconds kSlice{20};
  const auto until = std::min(membership_.next_beat(), next_look_);
  while (!stop.stop_requested() && SteadyClock::now() < until) {
    snapshots_.note_round();
    if (poked_.exchange(false)) return {};
    const auto heard = membership_.session().wait(Deadline::after(kSlice), stop);
    if (!heard) return fail(heard.error());
    if (heard->empty()) continue;
    hear(*heard);
    return {};
  }
  return {};
}

void Coordinator::hear(const std::vector<std::string>& payloads) {
  if (std::ranges::find(payloads, schema::kInstalledNotice) != payloads.end()) {
    schema_->installed();
  }
  catalog_.hear(payloads);
  next_look_ = {};
}

/// The lease session is gone, and every lease with it.
void Coordinator::lose_everything(const Error& error) {
  housekeeper_->set_on_duty(false);
  role_.lost();
  membership_.lost();
  runner_->lose_all(error);
}

/// The leases are kept while pipelines end: no other instance may take over what still ends here.
void Coordinator::end_everything(Deadline drain) {
  runner_->request_stop();
  bool lost = false;
  while (!runner_->all_ended() && !drain.passed() && !aborted_ && !lost) {
    // Short, because another instance waits for the leases.
    std::this_thread::sleep_for(milliseconds(2));
    lost = !membership_.keep();
  }
  if (lost) membership_.lost();
  runner_->end_all();
  membership_.leave();
}

}  // namespace relay::coordinator
