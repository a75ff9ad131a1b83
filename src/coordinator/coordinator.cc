#include "coordinator/coordinator.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <exception>
#include <random>
#include <utility>

#include "config/tree.h"
#include "core/host_name.h"
#include "core/log.h"
#include "core/shortage.h"

namespace relay::coordinator {

using postgres::Connection;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kNumbersEvery{5000};
/// Between two looks at a lease that is about to end.
constexpr milliseconds kShortestBeat{20};

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

Error schema_hint(Error error) {
  const bool missing = error.code == "42P01" || error.code == "3F000" || error.code == "42883" ||
                       error.code == "42703";
  if (missing) {
    error.error_class = ErrorClass::misconfigured;
    error.remedy = "install the database side first: pgtrickle-relay init --postgres-url ...";
  }
  return error;
}

Error beside_older(const std::string& worker) {
  return {ErrorClass::misconfigured,
          "older_relay",
          fmt::format("instance {} is of an older version, which knows no leases: this one takes "
                      "no pipeline beside it",
                      worker),
          "stop it: its pipelines are taken over at once",
          {}};
}

/// What an operator asked of a pipeline, as a notification says it.
struct Request {
  std::string pipeline;
  bool resume = false;
};

std::optional<Request> request_of(const std::string& payload) {
  const auto tree = config::parse_json(payload, "notification");
  if (!tree) return std::nullopt;
  const config::Node* event = tree->find("event");
  const config::Node* name = tree->find("name");
  if (!event || !event->text() || *event->text() != "control") return std::nullopt;
  if (!name || !name->text()) return std::nullopt;
  const config::Node* action = tree->find("action");
  return Request{*name->text(), action && action->text() && *action->text() == "resume"};
}

}  // namespace

Coordinator::Coordinator(config::Settings settings, const Registry& registry, Metrics& metrics,
                         FileLoader load_file)
    : settings_(std::move(settings)),
      registry_(registry),
      metrics_(metrics),
      load_file_(std::move(load_file)),
      worker_id_(make_worker_id()),
      started_(SteadyClock::now()),
      pool_(connection_options(settings_, "pgtrickle-relay", false),
            static_cast<std::size_t>(settings_.pool_size)),
      workshop_{registry_, pool_, metrics_, settings_.relay_group_id, worker_id_},
      lease_(settings_.lease_timeout) {
  note_round();
  last_snapshot_ = current_snapshot();
}

Coordinator::~Coordinator() {
  abort();
  stop();
}

void Coordinator::start() {
  reload_ = load_file_ != nullptr;
  sweep_ = std::make_unique<Sweep>(connection_options(settings_, "pgtrickle-relay sweep", true));
  housekeeper_ = std::make_unique<Housekeeper>(pool_);
  thread_ = std::jthread([this](std::stop_token stop) { run(stop); });
}

void Coordinator::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  housekeeper_->set_on_duty(false);
  thread_.request_stop();
  changed_.notify_all();
  thread_.join();
  housekeeper_.reset();
  sweep_.reset();
}

void Coordinator::abort() {
  {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
  }
  changed_.notify_all();
}

void Coordinator::reload() {
  {
    const std::lock_guard lock(mutex_);
    reload_ = true;
  }
  poke();
}

void Coordinator::poke() {
  poked_ = true;
}

void Coordinator::run(std::stop_token stop) {
  Backoff pause(milliseconds(100), milliseconds(2000), std::random_device{}());
  while (!stop.stop_requested()) {
    note_round();
    const auto began = SteadyClock::now();
    Result<void> ended;
    try {
      ended = session(stop);
    } catch (const std::exception& exception) {
      ended = fail(shortage::error_of(exception, "controlling the pipelines"));
    }
    if (stop.stop_requested()) break;
    if (ended) continue;
    const Error error = shortage::explained(schema_hint(ended.error()));
    bool served = false;
    {
      const std::lock_guard lock(mutex_);
      served = database_connected_;
    }
    log::failure("database", "", error);
    lose_everything(error);
    if (served) pause.reset();
    // One that served for a while was often ended alone: the next one can be had at once.
    if (served && SteadyClock::now() - began > std::chrono::seconds(1)) continue;
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, stop, pause.next(milliseconds(100)), [] { return false; });
  }
  stop_all(Deadline::after(settings_.drain_timeout));
}

/// The life of one lease session: until it is lost, or a stop is asked for.
Result<void> Coordinator::session(std::stop_token stop) {
  auto opened =
      Connection::open(connection_options(settings_, LeaseSession::kApplicationName, true), stop);
  if (!opened) return fail(opened.error());
  session_ =
      std::make_unique<LeaseSession>(std::move(*opened), settings_.relay_group_id, worker_id_);
  // From here on a stop interrupts no statement: that would end the session, and the leases with
  // it, while pipelines still finish their work.
  if (blocked_) {  // health names the session whose locks kept the last one from being opened
    if (const auto looked = refresh_blockers({}); !looked) return looked;
  }
  const auto open = session_->open(settings_.lease_timeout, {});
  blocked_ = !open;
  if (!open) return open;
  next_beat_ = next_look_ = next_numbers_ = {};
  catalog_version_.clear();
  leader_ = false;
  {
    const std::lock_guard lock(mutex_);
    catalog_changed_ = controls_changed_ = true;
  }
  while (!stop.stop_requested()) {
    const auto done = tick({});
    if (!done && !session_->ok()) return done;
    {
      const std::lock_guard lock(mutex_);
      database_connected_ = true;
      database_error_ = done ? std::nullopt : std::optional(schema_hint(done.error()));
    }
    if (done) {
      log::recovered("database", "");
    } else {
      log::failure("database", "", schema_hint(done.error()));
    }
    if (const auto waited = wait_for_change(stop); !waited) return waited;
  }
  return {};
}

Result<void> Coordinator::tick(std::stop_token stop) {
  const auto now = SteadyClock::now();
  const bool beats = now >= next_beat_;
  if (beats) {
    if (const auto beaten = beat(stop); !beaten) return beaten;
  }
  if (const auto done = settle_stopped(stop); !done) return done;
  bool look = now >= next_look_;
  {
    const std::lock_guard lock(mutex_);
    look = look || catalog_changed_ || controls_changed_ || reload_;
  }
  if (look) {
    next_look_ = now + settings_.discovery_interval;
    if (const auto done = refresh_catalog(stop); !done) return done;
    if (const auto done = balance(stop); !done) return done;
    if (const auto done = refresh_controls(stop); !done) return done;
  }
  run_pipelines();
  if (beats) {
    if (const auto done = take_duty(stop); !done) return done;
  }
  if (const auto done = finish_replays(stop); !done) return done;
  if (now >= next_numbers_) {
    next_numbers_ = now + kNumbersEvery;
    if (const auto done = refresh_numbers(stop); !done) return done;
  }
  look_for_causes();
  return write_statuses(stop);
}

Result<void> Coordinator::wait_for_change(std::stop_token stop) {
  // The session's socket is where news arrive; pokes from other threads are seen within the slice.
  constexpr milliseconds kSlice{20};
  const auto until = std::min(next_beat_, next_look_);
  while (!stop.stop_requested() && SteadyClock::now() < until) {
    note_round();
    if (poked_.exchange(false)) return {};
    const auto heard = session_->wait(Deadline::after(kSlice), stop);
    if (!heard) return fail(heard.error());
    if (heard->empty()) continue;
    const std::lock_guard lock(mutex_);
    for (const std::string& payload : *heard) {
      if (const auto request = request_of(payload)) {
        asked_.insert(request->pipeline);
        if (request->resume) resumed_.insert(request->pipeline);
        controls_changed_ = true;
      } else {
        catalog_changed_ = true;
      }
    }
    return {};
  }
  return {};
}

/// Renews the leases. What this instance may send until then counts from before it asked. The next
/// time is the moment when another instance's lease ends, if that is sooner than usual: what it
/// owned is taken over at once.
Result<Renewal> Coordinator::renew(std::stop_token stop) {
  const auto asked = BootClock::now();
  next_beat_ = SteadyClock::now() + lease_.interval();
  auto renewal = session_->renew(stop);
  if (!renewal) return renewal;
  lease_.renewed(asked);
  const auto sooner = std::max(std::min(renewal->first_end, lease_.interval()), kShortestBeat);
  next_beat_ = std::min(next_beat_, SteadyClock::now() + sooner);
  return renewal;
}

Result<void> Coordinator::beat(std::stop_token stop) {
  const auto renewal = renew(stop);
  if (!renewal) return fail(renewal.error());
  for (const std::string& worker : renewal->gone) {
    log::warn("takeover", "", "instance {} is gone: its session ended", worker);
  }
  for (const std::string& worker : renewal->expired) {
    log::warn("takeover", "", "instance {} has not renewed its leases in time", worker);
  }
  if (renewal->older.empty()) {
    log::recovered("older_relay", "");
  } else {
    log::failure("older_relay", "", beside_older(renewal->older.front()));
  }
  if (renewal->live != live_instances_) next_look_ = {};
  live_instances_ = renewal->live;
  return {};
}

/// Does the housekeeping where no other instance does.
Result<void> Coordinator::take_duty(std::stop_token stop) {
  if (on_duty_) return {};
  const std::array<std::string, 1> duty = {""};
  const auto taken = session_->take(LeaseKind::housekeeping, duty, 1, stop);
  if (!taken) return fail(taken.error());
  on_duty_ = !taken->empty();
  housekeeper_->set_on_duty(on_duty_);
  return {};
}

}  // namespace relay::coordinator
