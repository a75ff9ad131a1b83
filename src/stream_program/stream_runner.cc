#include "stream_program/stream_runner.h"

#include <fmt/core.h>

#include <array>
#include <exception>
#include <random>
#include <utility>

#include "coordinator/cause_rules.h"
#include "core/backoff.h"
#include "core/log.h"
#include "core/pause.h"
#include "core/shortage.h"
#include "state/dead_letter_statements.h"
#include "stream_program/database_side.h"

namespace relay::stream_program {

using postgres::Connection;
using std::chrono::milliseconds;

namespace {

constexpr std::size_t kPoolSize = 4;
constexpr std::string_view kLease = "stream";
constexpr std::string_view kDeadLetters = "pgstream.dead_letters";
/// Before a pipeline that could not be made, or ended by a failure, is made anew.
constexpr std::chrono::seconds kMakeAgain{5};
constexpr std::chrono::seconds kLookEvery{1};
constexpr std::chrono::seconds kLettersEvery{5};
constexpr const char* kRetry =
    "mend the cause; then UPDATE pgstream.dead_letters SET retry_requested_at = now() WHERE "
    "resolved_at IS NULL";
constexpr milliseconds kSlice{20};

const state::DeadLetterStatements& dead_letter_statements() {
  static const state::DeadLetterStatements statements(kDeadLetters);
  return statements;
}

Connection::Options lease_options(const StreamConfig& config) {
  auto options = options_of(config, fmt::format("postgres-stream lease {}", config.id));
  options.keepalive = true;
  return options;
}

/// The pool may be kept for longer than its stream, and its sessions need the certificates.
std::shared_ptr<postgres::Pool> make_pool(const StreamConfig& config) {
  struct Kept {
    explicit Kept(const StreamConfig& config)
        : certificates(config.certificates),
          pool(options_of(config, "postgres-stream"), kPoolSize) {}
    std::shared_ptr<const Certificates> certificates;
    postgres::Pool pool;
  };
  const auto kept = std::make_shared<Kept>(config);
  return {kept, &kept->pool};
}

/// Of a statement about the database side that the role may not run.
Error advised(Error error) {
  if (error.code == "42501" && error.remedy.find("pgtrickle") != std::string::npos) {
    error.remedy = "GRANT pgstream_daemon to the user of pg_connection; it needs REPLICATION too";
  }
  return error;
}

}  // namespace

StreamRunner::StreamRunner(StreamConfig config, const Settings& settings, const Registry& registry,
                           Metrics& metrics, const std::string& worker_id)
    : config_(std::move(config)),
      name_(std::to_string(config_.id)),
      source_("postgres-stream " + config_.pipeline.name),
      drain_timeout_(settings.drain_timeout),
      other_system_(settings.other_system),
      pool_(make_pool(config_)),
      workshop_{registry, *pool_, metrics, "postgres-stream", worker_id, dead_letter_statements()},
      membership_({.connection = lease_options(config_),
                   .names = {.prefix = "pgstream.daemon_", .channel = "pgstream_daemon"},
                   .group = name_,
                   .worker_id = worker_id,
                   .lease_timeout = settings.lease_timeout}),
      last_round_(SteadyClock::now().time_since_epoch().count()) {
  metrics.pipeline(config_.pipeline.name)->state.Set(static_cast<double>(PipelineState::standby));
}

StreamRunner::~StreamRunner() {
  stop();
}

bool StreamRunner::runs(const StreamConfig& stream) const {
  return stream.database == config_.database && stream.id == config_.id &&
         stream.pipeline.fingerprint == config_.pipeline.fingerprint;
}

void StreamRunner::start() {
  thread_ = std::jthread([this](std::stop_token stop) { run(stop); });
}

void StreamRunner::stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

void StreamRunner::run(std::stop_token stop) {
  Backoff backoff(milliseconds(100), milliseconds(2000), std::random_device{}());
  while (!stop.stop_requested()) {
    const auto began = SteadyClock::now();
    Result<void> ended;
    try {
      ended = session(stop);
    } catch (const std::exception& exception) {
      ended = fail(shortage::error_of(exception, "controlling the stream"));
    }
    if (ended || stop.stop_requested()) break;
    const Error error = shortage::explained(advised(ended.error()));
    log::failure("database", config_.pipeline.name, error);
    // Health tells it before the pipeline has ended, which may wait for the same server.
    note(false, error);
    membership_.lost();
    end_pipeline(Deadline::after(milliseconds(0)));
    if (SteadyClock::now() - began > std::chrono::seconds(1)) backoff.reset();
    pause(Deadline::after(backoff.next(milliseconds(100))), stop);
  }
  end_pipeline(Deadline::after(drain_timeout_));
  membership_.leave();
}

void StreamRunner::note(bool connected, std::optional<Error> error) {
  const MutexLock lock(mutex_);
  connected_ = connected;
  error_ = std::move(error);
  if (!connected) owned_ = false;
}

/// The life of one lease session: until it is lost, or a stop is asked for.
Result<void> StreamRunner::session(std::stop_token stop) {
  if (const auto connected = membership_.connect(stop); !connected) return connected;
  if (const auto prepared = prepare(stop); !prepared) return prepared;
  // From here on a stop interrupts no statement: that would end the session, and the lease with it,
  // while the pipeline still finishes its work.
  if (const auto joined = membership_.join({}); !joined) return joined;
  note(true, std::nullopt);
  log::recovered("database", config_.pipeline.name);
  while (!stop.stop_requested()) {
    last_round_ = SteadyClock::now().time_since_epoch().count();
    if (const auto done = round({}); !done) return done;
    const auto heard = membership_.session().wait(Deadline::after(kSlice), stop);
    if (!heard && !stop.stop_requested()) return fail(heard.error());
  }
  return {};
}

/// Makes the database side what this program needs, and the stream known to it.
Result<void> StreamRunner::prepare(std::stop_token stop) {
  Connection& connection = membership_.session().connection();
  const auto changed = install(connection, stop);
  if (!changed) return fail(changed.error());
  if (*changed) {
    log::info("installed", config_.pipeline.name, "the schema pgstream of {} is that of version {}",
              connection.endpoint(), RELAY_VERSION);
  }
  const auto added = connection.query("select pgstream.add_stream($1::bigint)", {name_},
                                      Deadline::after(ownership::LeaseSession::kTimeout), stop);
  if (!added) return fail(added.error());
  const MutexLock lock(mutex_);
  installed_ = true;
  return {};
}

Result<void> StreamRunner::round(std::stop_token stop) {
  const auto now = SteadyClock::now();
  if (now >= membership_.next_beat()) {
    const auto renewal = membership_.beat(stop);
    if (!renewal) return fail(renewal.error());
    if (const auto done = take(stop); !done) return done;
  }
  if (const auto done = attend(); !done) return done;
  if (now >= look_due_) {
    look_due_ = now + kLookEvery;
    look_for_causes();
  }
  if (now < letters_due_) return {};
  letters_due_ = now + kLettersEvery;
  return look_at_dead_letters(std::move(stop));
}

/// Counts them, and sends again those that an operator wants sent again.
Result<void> StreamRunner::look_at_dead_letters(std::stop_token stop) {
  const std::string& name = config_.pipeline.name;
  const auto rows = membership_.session().query(
      "select count(*), count(retry_requested_at) from pgstream.dead_letters "
      "where relay_group_id = $1 and pipeline = $2 and resolved_at is null",
      {workshop_.group, name}, std::move(stop));
  if (!rows) return fail(rows.error());
  dead_letters_ = rows->integer(0, 0);
  workshop_.metrics.pipeline(name)->dead_letters.Set(static_cast<double>(dead_letters_));
  const MutexLock lock(mutex_);
  if (assembled_.pipeline && rows->integer(0, 1) > 0) assembled_.pipeline->dead_letters_changed();
  return {};
}

/// Takes the stream where no other process owns it.
Result<void> StreamRunner::take(std::stop_token stop) {
  {
    const MutexLock lock(mutex_);
    if (owned_) return {};
  }
  const std::array<std::string, 1> names = {name_};
  const auto taken = membership_.session().take(kLease, names, 1, stop);
  if (!taken) return fail(taken.error());
  if (taken->empty()) return {};
  const auto ended = membership_.session().query(
      "select pgstream.daemon_end_earlier(token, $2) from pgstream.daemon_sessions "
      "where stream = $1 and owns and backend_pid = pg_backend_pid()",
      {name_, source_}, stop);
  if (!ended) return fail(ended.error());
  if (const auto done = go_on_elsewhere(stop); !done) return done;
  log::info("owner", config_.pipeline.name, "this process delivers the stream now");
  make_due_ = {};
  workshop_.metrics.pipeline(config_.pipeline.name)->owned.Set(1);
  const MutexLock lock(mutex_);
  owned_ = true;
  return {};
}

/// Does what the operator has decided for a stream that is on another system than before.
Result<void> StreamRunner::go_on_elsewhere(std::stop_token stop) {
  if (other_system_ == OtherSystem::refuse) return {};
  const bool resend = other_system_ == OtherSystem::resend;
  const auto rows = membership_.session().query("select pgstream.daemon_go_on($1::bigint, $2)",
                                                {name_, resend ? "true" : "false"}, stop);
  if (!rows) return fail(rows.error());
  if (rows->boolean(0, 0)) {
    log::warn("other_system", config_.pipeline.name,
              "the stream is on another system than before: it goes on with {}",
              resend ? "what is not known to be settled" : "what comes from now on");
  }
  return {};
}

/// Sees to it that there is a pipeline while this process is the owner.
Result<void> StreamRunner::attend() {
  Pipeline* pipeline = nullptr;
  {
    const MutexLock lock(mutex_);
    if (!owned_) return {};
    pipeline = assembled_.pipeline.get();
  }
  if (pipeline == nullptr) {
    return SteadyClock::now() < make_due_ ? Result<void>() : make_pipeline();
  }
  pipeline->attend();
  const std::optional<PipelineEnd> end = pipeline->report().end;
  if (!end) return {};
  log::failure("pipeline", config_.pipeline.name, end->error);
  end_pipeline(Deadline::after(milliseconds(0)));
  make_due_ = SteadyClock::now() + kMakeAgain;
  if (end->kind == PipelineEnd::Kind::defect) {
    const MutexLock lock(mutex_);
    problem_ = end->error;
    return {};
  }
  return give_back();
}

Result<void> StreamRunner::make_pipeline() {
  PipelineHooks hooks;
  hooks.lease = &membership_.lease();
  auto made = coordinator::assemble(config_.pipeline, workshop_, std::move(hooks),
                                    std::make_shared<SettledRows>());
  const MutexLock lock(mutex_);
  if (!made) {
    problem_ = made.error();
    log::failure("misconfigured", config_.pipeline.name, *problem_);
    make_due_ = SteadyClock::now() + kMakeAgain;
    return {};
  }
  if (problem_) log::recovered("misconfigured", config_.pipeline.name);
  problem_.reset();
  assembled_ = std::move(*made);
  watch_ = std::make_unique<StreamWatch>(*pool_, name_);
  assembled_.pipeline->start();
  return {};
}

/// Another process may own the stream.
Result<void> StreamRunner::give_back() {
  {
    const MutexLock lock(mutex_);
    owned_ = false;
  }
  const std::array<std::string, 1> names = {name_};
  return membership_.session().release(kLease, names, {});
}

/// Waits until the deadline for what is in flight; keeps the lease meanwhile.
void StreamRunner::end_pipeline(Deadline drain) {
  Pipeline* pipeline = nullptr;
  {
    const MutexLock lock(mutex_);
    pipeline = assembled_.pipeline.get();
  }
  const auto metrics = workshop_.metrics.pipeline(config_.pipeline.name);
  if (pipeline != nullptr) {
    pipeline->request_stop();
    while (!pipeline->ended() && !drain.passed() && membership_.keep()) {
      pause(Deadline::after(kSlice), {});
    }
    pipeline->give_up();
    pipeline->join(Deadline::after(milliseconds(0)));
    coordinator::Assembled ended;
    std::unique_ptr<StreamWatch> watched;
    const MutexLock lock(mutex_);
    std::swap(ended, assembled_);
    std::swap(watched, watch_);
  }
  metrics->owned.Set(0);
  metrics->lag.Set(0);
  metrics->state.Set(static_cast<double>(PipelineState::standby));
  metrics->show_ends({});
}

/// Why the stream is degraded beside the errors of its pipeline.
void StreamRunner::look_for_causes() {
  coordinator::PipelineFacts facts;
  facts.name = config_.pipeline.name;
  facts.skips = config_.pipeline.options.on_reject == "skip";
  facts.dead_letters.unresolved = dead_letters_;
  const auto wall = std::chrono::system_clock::now();
  StreamFindings found;
  const MutexLock lock(mutex_);
  facts.owned = assembled_.pipeline != nullptr;
  if (facts.owned) {
    found = watch_->found();
    facts.report = pipeline_report(found);
    workshop_.metrics.pipeline(facts.name)->show_ends(facts.report);
  }
  auto seen = coordinator::causes_of(facts, wall);
  for (const Error& problem : found.problems) {
    seen.push_back({.pipeline = facts.name, .object = "", .error = problem, .certain = true});
  }
  for (status::Sighting& sighting : seen) {
    if (sighting.error.code == "all_rejected" && !facts.skips) sighting.error.remedy = kRetry;
  }
  const auto changes = causes_.look(std::move(seen), SteadyClock::now(), wall);
  for (const auto& [sighting, began] : changes) {
    if (began) {
      log::failure(sighting.error.code, facts.name, sighting.error);
    } else {
      log::recovered(sighting.error.code, facts.name);
    }
  }
}

status::DeadLetters StreamRunner::dead_letters() const {
  return {pool_, kDeadLetters, config_.pipeline.name};
}

/// With the numbers of the database beside those of the source.
PipelineReport StreamRunner::pipeline_report(const StreamFindings& found) const {
  PipelineReport report = assembled_.pipeline->report();
  if (found.numbers.empty()) return report;
  if (!report.source) report.source = EndReport{.state = "polling", .problem = {}, .numbers = {}};
  auto& numbers = report.source->numbers;
  numbers.insert(numbers.end(), found.numbers.begin(), found.numbers.end());
  return report;
}

StreamRunner::Report StreamRunner::report() const {
  Report report;
  const SteadyClock::time_point last{SteadyClock::duration(last_round_.load())};
  report.silent = std::chrono::duration_cast<std::chrono::seconds>(SteadyClock::now() - last);
  status::PipelineStatus& status = report.pipeline;
  status.name = config_.pipeline.name;
  status.direction = config_.pipeline.direction;
  status.source_type = config_.pipeline.source_type;
  status.sink_type = config_.pipeline.sink_type;
  const MutexLock lock(mutex_);
  report.connected = connected_;
  report.installed = installed_;
  report.error = error_;
  status.owned = owned_;
  if (assembled_.pipeline) {
    status.report = pipeline_report(watch_->found());
  } else if (const auto& problem = error_ ? error_ : problem_) {
    const bool mistake = problem->error_class == ErrorClass::misconfigured;
    status.report.state = mistake ? PipelineState::misconfigured : PipelineState::retrying;
    status.report.error = problem;
  } else {
    const bool waits = connected_ && !owned_;
    status.report.state = waits ? PipelineState::standby : PipelineState::starting;
  }
  status.causes = causes_.of(status.name);
  if (!status.report.error && !status.causes.empty()) {
    status.report.error = status.causes.front().error;
  }
  return report;
}

}  // namespace relay::stream_program
