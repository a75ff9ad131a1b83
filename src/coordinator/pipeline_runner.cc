#include "coordinator/pipeline_runner.h"

#include <algorithm>
#include <utility>

#include "core/log.h"

namespace relay::coordinator {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kProblemRetry{30000};
/// Before a pipeline that ended by a failure of this process is made anew.
constexpr milliseconds kSetbackPause{5000};
/// How long a pipeline that starts counts as on its way up.
constexpr std::chrono::seconds kStartingCounts{2};

}  // namespace

PipelineRunner::PipelineRunner(PipelineTable& table, Workshop workshop, Sweep& sweep,
                               PipelineHooks hooks, milliseconds drain_timeout)
    : table_(table),
      workshop_(std::move(workshop)),
      sweep_(sweep),
      hooks_(std::move(hooks)),
      drain_timeout_(drain_timeout) {}

void PipelineRunner::stop(const Names& names) {
  for (const std::string& name : names) {
    PipelineEntry& entry = table_.entries.at(name);
    entry.drain = Deadline::after(drain_timeout_);
    entry.assembled.pipeline->request_stop();
  }
}

void PipelineRunner::follow(std::vector<config::PipelineConfig> wanted) {
  std::vector<Reconciler::Wanted> names;
  for (const auto& config : wanted) names.push_back({config.name, config.fingerprint});
  const MutexLock lock(table_.mutex);
  const auto changes = table_.reconciler.follow(names);
  for (auto& config : wanted) {
    auto& entry = table_.entries[config.name];
    entry.config = std::move(config);
  }
  for (const std::string& name : changes.added) {
    const auto& config = table_.entries.at(name).config;
    workshop_.metrics.pipeline(name);
    log::info("pipeline_added", name, "source {}, sink {}", config.source_type, config.sink_type);
  }
  for (const Names& news : {changes.added, changes.changed}) {
    for (const std::string& name : news) {
      PipelineEntry& entry = table_.entries.at(name);
      for (const Error& warning : warnings_of(entry.config, workshop_.registry)) {
        log::warn(warning.code, name, "{} Remedy: {}", warning.message, warning.remedy);
      }
      entry.problem.reset();
    }
  }
  for (const std::string& name : changes.changed) {
    if (table_.entries.at(name).assembled.pipeline) {
      log::info("pipeline_changed", name, "the configuration changed");
    }
  }
  stop(changes.stop);
  table_.instance.catalog_read = true;
}

void PipelineRunner::apply(Requests requests) {
  const MutexLock lock(table_.mutex);
  for (auto& [name, entry] : table_.entries) {
    Control now;
    const auto found = requests.controls.find(name);
    if (found != requests.controls.end()) now = std::move(found->second);
    const bool named = requests.named.contains(name);
    if (requests.resumed.contains(name)) entry.settled->acknowledge();
    if (table_.reconciler.at(name).run == Reconciler::Run::running) {
      Pipeline& pipeline = *entry.assembled.pipeline;
      if (named || now.paused != entry.control.paused) pipeline.set_paused(now.paused);
      for (const ReplayRequest& replay : now.replays) {
        const bool known = std::any_of(entry.control.replays.begin(), entry.control.replays.end(),
                                       [&](const auto& other) { return other.id == replay.id; });
        if (!known) pipeline.replay(replay);
      }
      if (named) {
        pipeline.dead_letters_changed();
        pipeline.nudge();
      }
    }
    entry.control = std::move(now);
  }
}

Reconciler::Exchange PipelineRunner::balance(const Reconciler::Group& group) {
  const MutexLock lock(table_.mutex);
  auto exchange = table_.reconciler.balance(group);
  for (const std::string& name : exchange.hand_over) {
    log::info("handover", name, "handed over: {} instances share {} pipelines", group.live,
              exchange.total);
  }
  stop(exchange.stop);
  return exchange;
}

void PipelineRunner::took(std::span<const std::string> names) {
  const MutexLock lock(table_.mutex);
  table_.reconciler.took(names);
  for (const std::string& name : names) workshop_.metrics.pipeline(name)->owned.Set(1);
  for (auto& [name, entry] : table_.entries) {
    // Another instance answers now, or will.
    if (!table_.reconciler.at(name).owned) entry.turning_away.reset();
  }
}

std::size_t PipelineRunner::coming_up() const {
  std::size_t starting = 0;
  const auto now = std::chrono::system_clock::now();
  for (const auto& [name, entry] : table_.entries) {
    if (!entry.assembled.pipeline) continue;
    const auto report = entry.assembled.pipeline->report();
    if (report.state == PipelineState::starting && now - report.since < kStartingCounts) ++starting;
  }
  return starting;
}

bool PipelineRunner::start_due() {
  const MutexLock lock(table_.mutex);
  bool failed = false;
  for (const std::string& name : table_.reconciler.start(SteadyClock::now(), coming_up())) {
    if (!make(table_.entries.at(name))) failed = true;
  }
  for (auto& [name, entry] : table_.entries) {
    if (!entry.assembled.pipeline) continue;
    entry.assembled.pipeline->attend();
    watch(entry);
  }
  return failed;
}

void PipelineRunner::watch(PipelineEntry& entry) {
  const Assembled& assembled = entry.assembled;
  std::string sequence = assembled.pipeline->source().watched_sequence();
  if (sequence == entry.watched) return;
  sweep_.watch(*assembled.pipeline, sequence, assembled.wake);
  entry.watched = std::move(sequence);
}

/// False: its configuration is wrong.
bool PipelineRunner::make(PipelineEntry& entry) {
  const std::string& name = entry.config.name;
  entry.watched.clear();
  entry.turning_away.reset();  // gives its port back
  auto assembled = assemble(entry.config, workshop_, hooks_, entry.settled);
  if (!assembled) {
    if (!entry.problem) entry.problem_since = std::chrono::system_clock::now();
    entry.problem = assembled.error();
    table_.reconciler.not_made(name, SteadyClock::now() + kProblemRetry);
    workshop_.metrics.pipeline(name)->state.Set(static_cast<double>(PipelineState::misconfigured));
    log::failure("misconfigured", name, *entry.problem);
    return false;
  }
  if (entry.problem) log::recovered("misconfigured", name);
  entry.problem.reset();
  entry.assembled = std::move(*assembled);
  Pipeline& pipeline = *entry.assembled.pipeline;
  pipeline.set_paused(entry.control.paused);
  for (const ReplayRequest& replay : entry.control.replays) pipeline.replay(replay);
  pipeline.start();
  return true;
}

/// Stops a running pipeline that came to an end of its own.
void PipelineRunner::end_if_broken(PipelineEntry& entry) {
  const std::optional<PipelineEnd> end = entry.assembled.pipeline->report().end;
  if (!end) return;
  std::optional<SteadyClock::time_point> again;
  bool hand_over = false;
  switch (end->kind) {
    case PipelineEnd::Kind::fenced:
    case PipelineEnd::Kind::rewound:  // the next owner judges what the outbox holds now
      hand_over = true;
      break;
    case PipelineEnd::Kind::defect:
      entry.problem = end->error;
      entry.problem_since = std::chrono::system_clock::now();
      again = SteadyClock::now() + kSetbackPause;
      break;
  }
  table_.reconciler.broke_off(entry.config.name, hand_over, again);
  stop({entry.config.name});
}

Reconciler::Leaving PipelineRunner::settle_ended() {
  std::vector<Assembled> ending;
  {
    const MutexLock lock(table_.mutex);
    for (auto& [name, entry] : table_.entries) {
      const Pipeline* pipeline = entry.assembled.pipeline.get();
      if (!pipeline) continue;
      const auto& placement = table_.reconciler.at(name);
      if (placement.run == Reconciler::Run::running) end_if_broken(entry);
      if (placement.run == Reconciler::Run::stopping &&
          (pipeline->ended() || entry.drain.passed())) {
        ending.push_back(std::exchange(entry.assembled, {}));
        table_.reconciler.ended(name);
      }
    }
  }
  end(std::move(ending));
  const MutexLock lock(table_.mutex);
  auto leaving = table_.reconciler.leave();
  // First of all: the reconciler knows these no longer.
  for (const std::string& name : leaving.forget) table_.entries.erase(name);
  for (const std::string& name : leaving.release) {
    if (const auto found = table_.entries.find(name); found != table_.entries.end()) {
      found->second.problem.reset();
    }
    const auto metrics = workshop_.metrics.pipeline(name);
    metrics->owned.Set(0);
    metrics->lag.Set(0);
    metrics->state.Set(static_cast<double>(PipelineState::standby));
    metrics->show_ends({});
  }
  for (const std::string& name : leaving.forget) {
    log::info("pipeline_removed", name, "it is disabled or deleted");
    workshop_.metrics.drop(name);
  }
  return leaving;
}

/// Waits for pipelines that were asked to end. They have ended when this returns them.
std::vector<Assembled> PipelineRunner::end(std::vector<Assembled> pipelines) {
  for (Assembled& assembled : pipelines) assembled.pipeline->give_up();
  for (Assembled& assembled : pipelines) {
    assembled.pipeline->join(Deadline::after(milliseconds(0)));
    sweep_.forget(*assembled.pipeline);
  }
  return pipelines;
}

void PipelineRunner::lose_all(const Error& error) {
  std::vector<Assembled> ending;
  {
    const MutexLock lock(table_.mutex);
    table_.instance.database_connected = false;
    table_.instance.database_error = error;
    for (auto& [name, entry] : table_.entries) {
      if (entry.assembled.pipeline) {
        entry.assembled.pipeline->request_stop();
        ending.push_back(std::exchange(entry.assembled, {}));
      }
      entry.written_status.clear();
      const auto metrics = workshop_.metrics.pipeline(name);
      metrics->owned.Set(0);
      metrics->show_ends({});
    }
    table_.reconciler.lost();
  }
  ending = end(std::move(ending));
  const MutexLock lock(table_.mutex);
  for (Assembled& ended : ending) {
    if (!ended.pipeline->source().answers_when_closed()) continue;
    table_.entries.at(ended.pipeline->name()).turning_away = std::move(ended.pipeline);
  }
}

void PipelineRunner::request_stop() {
  const MutexLock lock(table_.mutex);
  for (auto& [name, entry] : table_.entries) {
    if (entry.assembled.pipeline) entry.assembled.pipeline->request_stop();
  }
}

bool PipelineRunner::all_ended() const {
  const MutexLock lock(table_.mutex);
  return std::all_of(table_.entries.begin(), table_.entries.end(), [](const auto& item) {
    const auto& pipeline = item.second.assembled.pipeline;
    return !pipeline || pipeline->ended();
  });
}

void PipelineRunner::end_all() {
  std::vector<Assembled> ending;
  {
    const MutexLock lock(table_.mutex);
    for (auto& [name, entry] : table_.entries) {
      if (entry.assembled.pipeline) ending.push_back(std::exchange(entry.assembled, {}));
    }
  }
  end(std::move(ending));
}

}  // namespace relay::coordinator
