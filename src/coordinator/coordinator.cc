#include "coordinator/coordinator.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <exception>
#include <random>
#include <utility>

#include "config/tree.h"
#include "coordinator/share.h"
#include "core/log.h"

namespace relay::coordinator {

using config::PipelineConfig;
using postgres::Connection;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kNumbersEvery{5000};
constexpr milliseconds kProblemRetry{30000};
/// Sessions of the pool that nobody used for so long are closed.
constexpr std::chrono::minutes kUnusedSessions{1};
/// How many pipelines may be on their way up at once, and how long one counts as such: a thousand
/// that start together do not make a thousand connections.
constexpr int kStartingAtOnce = 16;
constexpr std::chrono::seconds kStartingCounts{2};

std::string make_worker_id() {
  std::array<char, 64> host{};
  ::gethostname(host.data(), host.size() - 1);
  std::random_device random;
  return fmt::format("{}-{}-{:08x}", host.data(), ::getpid(), random());
}

Connection::Options connection_options(const config::Settings& settings, std::string_view name,
                                       bool dedicated) {
  Connection::Options options;
  options.url = settings.postgres_url;
  options.application_name = name;
  options.keepalive = dedicated;
  return options;
}

Error schema_hint(Error error) {
  const bool missing = error.code == "42P01" || error.code == "3F000" || error.code == "42883";
  if (missing) {
    error.error_class = ErrorClass::misconfigured;
    error.remedy = "install the database side first: pgtrickle-relay init --postgres-url ...";
  }
  return error;
}

/// The pipeline of which somebody asked something, where a notification says that.
std::optional<std::string> asked_pipeline(const std::string& payload) {
  const auto tree = config::parse_json(payload, "notification");
  if (!tree) return std::nullopt;
  const config::Node* event = tree->find("event");
  const config::Node* name = tree->find("name");
  if (!event || !event->text() || *event->text() != "control") return std::nullopt;
  if (!name || !name->text()) return std::nullopt;
  return *name->text();
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
      workshop_{registry_, pool_, metrics_, settings_.relay_group_id, worker_id_} {}

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

PipelineHooks Coordinator::hooks() {
  PipelineHooks hooks;
  hooks.lease_valid = [this] {
    return SteadyClock::now().time_since_epoch().count() < lease_until_.load();
  };
  hooks.replay_finished = [this](const ReplayRequest& request, const std::optional<Error>& error) {
    {
      const std::lock_guard lock(finished_mutex_);
      finished_replays_.emplace_back(request.id, error ? error->message : std::string());
    }
    poke();
  };
  hooks.source_opened = [this] { poke(); };
  return hooks;
}

void Coordinator::run(std::stop_token stop) {
  Backoff pause(milliseconds(100), milliseconds(2000), std::random_device{}());
  while (!stop.stop_requested()) {
    Result<void> ended;
    try {
      ended = session(stop);
    } catch (const std::exception& exception) {
      ended = fail(ErrorClass::transient, "internal", exception.what());
    }
    if (stop.stop_requested()) break;
    if (ended) continue;
    const Error error = schema_hint(ended.error());
    {
      const std::lock_guard lock(mutex_);
      if (database_connected_) pause.reset();
    }
    log::failure("database", "", error);
    lose_everything(error);
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, stop, pause.next(milliseconds(100)), [] { return false; });
  }
  stop_all(Deadline::after(settings_.drain_timeout));
}

/// The life of one lock session: until it is lost, or a stop is asked for.
Result<void> Coordinator::session(std::stop_token stop) {
  auto opened =
      Connection::open(connection_options(settings_, LockSession::kApplicationName, true), stop);
  if (!opened) return fail(opened.error());
  session_ =
      std::make_unique<LockSession>(std::move(*opened), settings_.relay_group_id, worker_id_);
  // From here on a stop interrupts no statement: that would end the session, and the locks with it,
  // while pipelines still finish their work.
  if (const auto listening = session_->listen({}); !listening) return listening;
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
  if (now >= next_beat_) {
    next_beat_ = now + settings_.lease_timeout / 5;
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
  if (const auto done = finish_replays(stop); !done) return done;
  if (now >= next_numbers_) {
    next_numbers_ = now + kNumbersEvery;
    if (const auto done = refresh_numbers(stop); !done) return done;
  }
  return write_statuses(stop);
}

Result<void> Coordinator::wait_for_change(std::stop_token stop) {
  // The session's socket is where news arrive; pokes from other threads are seen within the slice.
  constexpr milliseconds kSlice{20};
  const auto until = std::min(next_beat_, next_look_);
  while (!stop.stop_requested() && SteadyClock::now() < until) {
    if (poked_.exchange(false)) return {};
    const auto heard = session_->wait(Deadline::after(kSlice), stop);
    if (!heard) return fail(heard.error());
    if (heard->empty()) continue;
    const std::lock_guard lock(mutex_);
    for (const std::string& payload : *heard) {
      if (auto pipeline = asked_pipeline(payload)) {
        asked_.insert(std::move(*pipeline));
        controls_changed_ = true;
      } else {
        catalog_changed_ = true;
      }
    }
    return {};
  }
  return {};
}

Result<void> Coordinator::beat(std::stop_token stop) {
  const auto before = SteadyClock::now();
  const auto others = session_->heartbeat(settings_.lease_timeout, stop);
  if (!others) return fail(others.error());
  lease_until_ = (before + settings_.lease_timeout).time_since_epoch().count();
  std::size_t live = 1;
  for (const Instance& other : *others) {
    // One whose session is gone holds nothing: it has ended, or comes back with a new one.
    if (!other.stale && other.present) ++live;
    if (!other.stale) continue;
    log::warn("takeover", "", "instance {} has not been heard of for {} ms{}", other.worker_id,
              settings_.lease_timeout.count(), other.present ? ": its session is ended" : "");
    if (const auto evicted = session_->evict(other, stop); !evicted) return evicted;
  }
  if (live != live_instances_) next_look_ = {};
  live_instances_ = live;
  if (!on_duty_) {
    const std::array<std::int64_t, 1> duty = {lock_key("", "housekeeping")};
    const auto taken = session_->take(duty, 1, stop);
    if (!taken) return fail(taken.error());
    on_duty_ = !taken->empty();
    housekeeper_->set_on_duty(on_duty_);
  }
  return {};
}

Result<void> Coordinator::refresh_catalog(std::stop_token stop) {
  bool reload = false;
  {
    const std::lock_guard lock(mutex_);
    reload = std::exchange(reload_, false);
    catalog_changed_ = false;
  }
  const auto version = session_->catalog_version(stop);
  if (!version) return fail(version.error());
  if (reload && load_file_) {
    auto loaded = load_file_();
    if (loaded) {
      from_file_ = std::move(*loaded);
    } else {
      // A file that cannot be parsed changes nothing.
      log::failure("configuration", "", loaded.error());
    }
  }
  if (!reload && *version == catalog_version_) return {};
  const auto entries = session_->catalog(stop);
  if (!entries) return fail(entries.error());
  from_sql_.clear();
  for (const CatalogEntry& entry : *entries) {
    from_sql_.push_back(
        config::pipeline_from_json(entry.name, entry.direction, entry.enabled, entry.config));
  }
  catalog_version_ = *version;
  apply(merge(from_sql_));
  const std::lock_guard lock(mutex_);
  catalog_read_ = true;
  controls_changed_ = true;
  return {};
}

/// Pipelines of catalog and file. A name that both use is an error of that name: which of the two
/// is meant, nobody can tell.
std::vector<PipelineConfig> Coordinator::merge(std::vector<PipelineConfig> from_sql) const {
  std::map<std::string, std::size_t> by_name;
  for (std::size_t i = 0; i < from_sql.size(); ++i) by_name.emplace(from_sql[i].name, i);
  for (const auto& pipeline : from_file_) {
    const auto [found, is_new] = by_name.emplace(pipeline.name, from_sql.size());
    if (is_new) {
      from_sql.push_back(pipeline);
      continue;
    }
    PipelineConfig& other = from_sql[found->second];
    other.problems.push_back({ErrorClass::misconfigured,
                              "name_taken",
                              fmt::format("{}: the name {} is that of another pipeline too ({})",
                                          pipeline.place, pipeline.name, other.place),
                              "rename one of the two, or delete it",
                              {}});
    other.fingerprint += pipeline.fingerprint;
    other.enabled = true;
  }
  std::erase_if(from_sql, [](const PipelineConfig& pipeline) { return !pipeline.enabled; });
  return from_sql;
}

/// Makes the table follow the configuration: exactly what changed is stopped or remade.
void Coordinator::apply(std::vector<PipelineConfig> wanted) {
  const std::lock_guard lock(mutex_);
  for (auto& [name, entry] : table_) entry->removed = true;
  for (PipelineConfig& config : wanted) {
    auto& entry = table_[config.name];
    if (!entry) {
      entry = std::make_unique<Entry>();
      entry->key = lock_key(settings_.relay_group_id, config.name);
      metrics_.pipeline(config.name);
      log::info("pipeline_added", config.name, "source {}, sink {}", config.source_type,
                config.sink_type);
    }
    entry->removed = false;
    if (entry->config.fingerprint != config.fingerprint || entry->config.name.empty()) {
      entry->problem.reset();
      entry->try_again = {};
      if (entry->assembled.pipeline) {
        log::info("pipeline_changed", config.name, "the configuration changed");
        begin_stop(*entry);
      }
    }
    entry->config = std::move(config);
  }
  for (auto& [name, entry] : table_) {
    if (entry->removed) begin_stop(*entry);
  }
}

void Coordinator::begin_stop(Entry& entry) {
  if (!entry.assembled.pipeline || entry.stopping) return;
  entry.stopping = true;
  entry.drain = Deadline::after(settings_.drain_timeout);
  entry.assembled.pipeline->request_stop();
}

/// Waits for pipelines that were asked to end. Not under the mutex: others want to know meanwhile
/// how things stand. Returns them: they have ended, and exist.
std::vector<Assembled> Coordinator::end(std::vector<Assembled> pipelines) {
  for (Assembled& assembled : pipelines) assembled.pipeline->give_up();
  for (Assembled& assembled : pipelines) {
    assembled.pipeline->join(Deadline::after(milliseconds(0)));
    sweep_->forget(*assembled.pipeline);
  }
  return pipelines;
}

/// Takes leave of pipelines that have ended: removed ones and those handed over give up their lock.
Result<void> Coordinator::settle_stopped(std::stop_token stop) {
  std::vector<Assembled> ending;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [name, item] : table_) {
      Entry& entry = *item;
      const Pipeline* pipeline = entry.assembled.pipeline.get();
      if (pipeline && !entry.stopping && pipeline->report().fenced) {
        log::warn("fenced", entry.config.name, "another instance owns this pipeline now");
        entry.release = true;
        begin_stop(entry);
      }
      if (pipeline && entry.stopping && (pipeline->ended() || entry.drain.passed())) {
        ending.push_back(std::exchange(entry.assembled, {}));
        entry.stopping = false;
      }
    }
  }
  end(std::move(ending));
  std::vector<std::int64_t> to_release;
  std::vector<PipelineStatus> ended;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = table_.begin(); it != table_.end();) {
      Entry& entry = *it->second;
      const Pipeline* pipeline = entry.assembled.pipeline.get();
      const bool leave = entry.removed || entry.release;
      if (leave && !pipeline && entry.owned) {
        if (entry.removed) {
          ended.push_back(status_of(entry));
          ended.back().report.state = PipelineState::stopped;
          ended.back().report.error.reset();
        }
        to_release.push_back(entry.key);
        entry.owned = entry.release = false;
        entry.problem.reset();
        const auto metrics = metrics_.pipeline(entry.config.name);
        metrics->owned.Set(0);
        metrics->lag.Set(0);
        metrics->state.Set(static_cast<double>(PipelineState::standby));
      }
      if (entry.removed && !pipeline) {
        log::info("pipeline_removed", it->first, "it is disabled or deleted");
        metrics_.drop(it->first);
        it = table_.erase(it);
      } else {
        ++it;
      }
    }
  }
  for (const std::int64_t key : to_release) {
    if (const auto released = session_->release(key, stop); !released) return released;
  }
  return session_->write_status(ended, stop);
}

/// Takes locks up to this instance's share, and hands over what is beyond it.
Result<void> Coordinator::balance(std::stop_token stop) {
  std::vector<std::int64_t> wanted;
  std::size_t total = 0;
  std::vector<Entry*> held;
  for (auto& [name, entry] : table_) {
    if (entry->removed) continue;
    ++total;
    if (entry->owned) {
      if (!entry->release) held.push_back(entry.get());
    } else {
      wanted.push_back(entry->key);
    }
  }
  Share share = share_of(total, live_instances_, held.size());
  if (settings_.ha_mode == "leader") {
    if (!leader_) {
      const std::array<std::int64_t, 1> key = {lock_key(settings_.relay_group_id, "")};
      const auto taken = session_->take(key, 1, stop);
      if (!taken) return fail(taken.error());
      leader_ = !taken->empty();
    }
    share = leader_share(total, leader_, held.size());
  }
  for (std::size_t i = 0; i < share.release && i < held.size(); ++i) {
    Entry& entry = *held[held.size() - 1 - i];
    log::info("handover", entry.config.name, "handed over: {} instances share {} pipelines",
              live_instances_, total);
    const std::lock_guard lock(mutex_);
    entry.release = true;
    begin_stop(entry);
  }
  const auto taken = session_->take(wanted, share.take, stop);
  if (!taken) return fail(taken.error());
  const std::set<std::int64_t> ours(taken->begin(), taken->end());
  const std::lock_guard lock(mutex_);
  for (auto& [name, entry] : table_) {
    if (!ours.contains(entry->key)) {
      if (!entry->owned) entry->turning_away.reset();  // it is for another instance to answer
      continue;
    }
    entry->owned = true;
    entry->try_again = {};
    metrics_.pipeline(name)->owned.Set(1);
    controls_changed_ = true;
  }
  return {};
}

Result<void> Coordinator::refresh_controls(std::stop_token stop) {
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(controls_changed_, false)) return {};
  }
  const auto controls = session_->controls(stop);
  if (!controls) return fail(controls.error());
  const std::lock_guard lock(mutex_);
  for (auto& [name, entry] : table_) {
    Control now;
    for (const auto& [pipeline, control] : *controls) {
      if (pipeline != name) continue;
      now.paused = now.paused || control.paused;
      now.replays.insert(now.replays.end(), control.replays.begin(), control.replays.end());
    }
    const bool asked = asked_.contains(name);
    if (entry->assembled.pipeline && !entry->stopping) {
      Pipeline& pipeline = *entry->assembled.pipeline;
      if (asked || now.paused != entry->control.paused) pipeline.set_paused(now.paused);
      for (const ReplayRequest& replay : now.replays) {
        const bool known = std::any_of(entry->control.replays.begin(), entry->control.replays.end(),
                                       [&](const auto& other) { return other.id == replay.id; });
        if (!known) pipeline.replay(replay);
      }
      if (asked) {
        pipeline.dead_letters_changed();
        pipeline.nudge();
      }
    }
    entry->control = std::move(now);
  }
  asked_.clear();
  return {};
}

bool Coordinator::starting_is_crowded() const {
  int starting = 0;
  const auto now = std::chrono::system_clock::now();
  for (const auto& [name, entry] : table_) {
    if (!entry->assembled.pipeline) continue;
    const auto report = entry->assembled.pipeline->report();
    if (report.state == PipelineState::starting && now - report.since < kStartingCounts) ++starting;
  }
  return starting >= kStartingAtOnce;
}

/// Makes and starts owned pipelines that do not run, and shows the sweep those that were opened.
void Coordinator::run_pipelines() {
  const std::lock_guard lock(mutex_);
  bool crowded = starting_is_crowded();
  int started = 0;
  for (auto& [name, entry] : table_) {
    Assembled& assembled = entry->assembled;
    if (entry->owned && !entry->removed && !entry->release && !assembled.pipeline &&
        SteadyClock::now() >= entry->try_again) {
      crowded = crowded || started >= kStartingAtOnce;
      if (crowded) continue;
      make(*entry);
      ++started;
    }
    if (!assembled.pipeline) continue;
    assembled.pipeline->attend();
    if (!assembled.outbox) continue;
    std::string sequence = assembled.outbox->sequence();
    if (sequence == entry->watched) continue;
    sweep_->watch(*assembled.pipeline, sequence, assembled.wake);
    entry->watched = std::move(sequence);
  }
}

void Coordinator::make(Entry& entry) {
  entry.watched.clear();
  entry.turning_away.reset();  // gives its port back
  auto assembled = assemble(entry.config, workshop_, hooks());
  if (!assembled) {
    if (!entry.problem) entry.problem_since = std::chrono::system_clock::now();
    entry.problem = assembled.error();
    entry.try_again = SteadyClock::now() + kProblemRetry;
    metrics_.pipeline(entry.config.name)
        ->state.Set(static_cast<double>(PipelineState::misconfigured));
    // References to files and environment are resolved anew when the catalog is read anew.
    catalog_version_.clear();
    log::failure("misconfigured", entry.config.name, *entry.problem);
    return;
  }
  if (entry.problem) log::recovered("misconfigured", entry.config.name);
  entry.problem.reset();
  entry.assembled = std::move(*assembled);
  Pipeline& pipeline = *entry.assembled.pipeline;
  pipeline.set_paused(entry.control.paused);
  for (const ReplayRequest& replay : entry.control.replays) pipeline.replay(replay);
  pipeline.start();
}

Result<void> Coordinator::finish_replays(std::stop_token stop) {
  std::deque<std::pair<std::int64_t, std::string>> finished;
  {
    const std::lock_guard lock(finished_mutex_);
    finished.swap(finished_replays_);
  }
  while (!finished.empty()) {
    const auto done =
        session_->finish_replay(finished.front().first, finished.front().second, stop);
    if (!done) {
      const std::lock_guard lock(finished_mutex_);
      finished_replays_.insert(finished_replays_.begin(), finished.begin(), finished.end());
      return done;
    }
    finished.pop_front();
  }
  return {};
}

Result<void> Coordinator::refresh_numbers(std::stop_token stop) {
  const auto counts = session_->dead_letters(stop);
  if (!counts) return fail(counts.error());
  const std::lock_guard lock(mutex_);
  for (auto& [name, entry] : table_) {
    if (!entry->owned) continue;
    const auto metrics = metrics_.pipeline(name);
    const auto found = std::find_if(counts->begin(), counts->end(),
                                    [&](const auto& count) { return count.first == name; });
    metrics->dead_letters.Set(found == counts->end() ? 0 : static_cast<double>(found->second));
    if (entry->assembled.outbox) {
      metrics->oldest_open_writer.Set(entry->assembled.outbox->status().oldest_open_writer_seconds);
    }
  }
  pool_.trim(kUnusedSessions);
  metrics_.pool_connections().Set(static_cast<double>(pool_.open_connections()));
  return {};
}

PipelineStatus Coordinator::status_of(const Entry& entry) const {
  PipelineStatus status;
  status.name = entry.config.name;
  status.direction = entry.config.direction;
  status.source_type = entry.config.source_type;
  status.sink_type = entry.config.sink_type;
  status.owned = entry.owned;
  if (entry.assembled.pipeline) {
    status.report = entry.assembled.pipeline->report();
  } else if (entry.problem) {
    status.report.state = PipelineState::misconfigured;
    status.report.error = entry.problem;
    status.report.since = entry.problem_since;
  } else {
    status.report.state = entry.owned ? PipelineState::starting : PipelineState::standby;
  }
  if (entry.assembled.outbox) {
    const auto outbox = entry.assembled.outbox->status();
    status.oldest_open_writer_seconds = outbox.oldest_open_writer_seconds;
    status.oldest_open_writer_pid = outbox.oldest_open_writer_pid;
  }
  return status;
}

/// Writes how owned pipelines do, where that changed in something one would want to see.
Result<void> Coordinator::write_statuses(std::stop_token stop) {
  if (SteadyClock::now() < next_status_) return {};
  next_status_ = SteadyClock::now() + milliseconds(500);
  std::vector<PipelineStatus> changed;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [name, entry] : table_) {
      if (!entry->owned || entry->removed) continue;
      PipelineStatus status = status_of(*entry);
      std::string text = fmt::format("{} {} {} {}", to_string(status.report.state),
                                     status.report.position.id, status.report.lag.value_or(-1),
                                     status.report.error ? status.report.error->message : "");
      if (text == entry->written_status) continue;
      entry->written_status = std::move(text);
      changed.push_back(std::move(status));
    }
  }
  return session_->write_status(changed, stop);
}

/// The lock session is gone, and every lock with it: pipelines end at once, committing nothing that
/// a new owner would not also accept.
void Coordinator::lose_everything(const Error& error) {
  lease_until_ = 0;
  housekeeper_->set_on_duty(false);
  on_duty_ = false;
  session_.reset();
  std::vector<Assembled> ending;
  {
    const std::lock_guard lock(mutex_);
    database_connected_ = false;
    database_error_ = error;
    for (auto& [name, entry] : table_) {
      if (entry->assembled.pipeline) {
        entry->assembled.pipeline->request_stop();
        ending.push_back(std::exchange(entry->assembled, {}));
      }
      entry->owned = entry->stopping = entry->release = false;
      entry->written_status.clear();
      metrics_.pipeline(name)->owned.Set(0);
    }
  }
  ending = end(std::move(ending));
  const std::lock_guard lock(mutex_);
  for (Assembled& ended : ending) {
    if (!ended.pipeline->source().answers_when_closed()) continue;
    table_.at(ended.pipeline->name())->turning_away = std::move(ended.pipeline);
  }
}

void Coordinator::stop_all(Deadline drain) {
  std::unique_lock lock(mutex_);
  for (auto& [name, entry] : table_) {
    if (entry->assembled.pipeline) entry->assembled.pipeline->request_stop();
  }
  const auto all_ended = [this] {
    return std::all_of(table_.begin(), table_.end(), [](const auto& item) {
      const auto& pipeline = item.second->assembled.pipeline;
      return !pipeline || pipeline->ended();
    });
  };
  // The lease is kept meanwhile: whoever waits to take over must not think that we are dead.
  while (!all_ended() && !drain.passed() && !aborted_) {
    changed_.wait_for(lock, milliseconds(20));
    if (session_ && session_->ok() && SteadyClock::now() >= next_beat_) {
      next_beat_ = SteadyClock::now() + settings_.lease_timeout / 5;
      lock.unlock();
      const auto before = SteadyClock::now();
      if (session_->heartbeat(settings_.lease_timeout, {})) {
        lease_until_ = (before + settings_.lease_timeout).time_since_epoch().count();
      }
      lock.lock();
    }
  }
  std::vector<Assembled> ending;
  for (auto& [name, entry] : table_) {
    if (entry->assembled.pipeline) ending.push_back(std::exchange(entry->assembled, {}));
  }
  lock.unlock();
  end(std::move(ending));
  if (!session_ || !session_->ok()) return;
  const auto gone = session_->sign_off({});
  if (!gone) log::failure("database", "", gone.error());
  session_.reset();
}

Snapshot Coordinator::snapshot() const {
  const std::lock_guard lock(mutex_);
  Snapshot snapshot;
  for (const auto& [name, entry] : table_) {
    if (!entry->removed) snapshot.pipelines.push_back(status_of(*entry));
  }
  snapshot.uptime = std::chrono::duration_cast<std::chrono::seconds>(SteadyClock::now() - started_);
  snapshot.database_connected = database_connected_;
  snapshot.catalog_read = catalog_read_;
  snapshot.database_error = database_error_;
  snapshot.worker_id = worker_id_;
  snapshot.group = settings_.relay_group_id;
  snapshot.stopping = stopping_;
  return snapshot;
}

}  // namespace relay::coordinator
