// The pipelines of this instance: whose they are, their start and their end.
#include <array>
#include <utility>

#include "coordinator/coordinator.h"
#include "coordinator/share.h"
#include "core/log.h"

namespace relay::coordinator {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kProblemRetry{30000};
/// Before a pipeline that ended by a failure of this process is made anew.
constexpr milliseconds kSetbackPause{5000};
/// How many pipelines may be on their way up at once, and how long one counts as such: a thousand
/// that start together do not make a thousand connections.
constexpr int kStartingAtOnce = 16;
constexpr std::chrono::seconds kStartingCounts{2};

}  // namespace

PipelineHooks Coordinator::hooks() {
  PipelineHooks hooks;
  hooks.lease = &lease_.lease();
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

/// Takes leave of pipelines that have ended: removed ones and those handed over give up their
/// lease.
Result<void> Coordinator::settle_stopped(std::stop_token stop) {
  std::vector<Assembled> ending;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [name, item] : table_) {
      Entry& entry = *item;
      const Pipeline* pipeline = entry.assembled.pipeline.get();
      if (pipeline && !entry.stopping) {
        const PipelineReport report = pipeline->report();
        entry.release = entry.release || report.fenced;
        if (report.ended_by) {
          entry.problem = report.ended_by;
          entry.problem_since = std::chrono::system_clock::now();
          entry.try_again = SteadyClock::now() + kSetbackPause;
        }
        if (report.fenced || report.ended_by) begin_stop(entry);
      }
      if (pipeline && entry.stopping && (pipeline->ended() || entry.drain.passed())) {
        ending.push_back(std::exchange(entry.assembled, {}));
        entry.stopping = false;
      }
    }
  }
  end(std::move(ending));
  std::vector<std::string> to_release;
  std::vector<std::string> ended;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = table_.begin(); it != table_.end();) {
      Entry& entry = *it->second;
      const Pipeline* pipeline = entry.assembled.pipeline.get();
      const bool leave = entry.removed || entry.release;
      if (leave && !pipeline && entry.owned) {
        if (entry.removed) ended.push_back(entry.config.name);
        to_release.push_back(entry.config.name);
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
  const auto released = session_->release(LeaseKind::pipeline, to_release, stop);
  if (!released) return released;
  return session_->end_status(ended, stop);
}

/// Takes leases up to this instance's share, and hands over what is beyond it.
Result<void> Coordinator::balance(std::stop_token stop) {
  std::vector<std::string> wanted;
  std::size_t total = 0;
  std::vector<Entry*> held;
  for (auto& [name, entry] : table_) {
    if (entry->removed) continue;
    ++total;
    if (entry->owned) {
      if (!entry->release) held.push_back(entry.get());
    } else {
      wanted.push_back(name);
    }
  }
  Share share = share_of(total, live_instances_, held.size());
  if (settings_.ha_mode == "leader") {
    if (!leader_) {
      const std::array<std::string, 1> leader = {""};
      const auto taken = session_->take(LeaseKind::leader, leader, 1, stop);
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
  const auto taken = session_->take(LeaseKind::pipeline, wanted, share.take, stop);
  if (!taken) return fail(taken.error());
  const std::set<std::string> ours(taken->begin(), taken->end());
  const std::lock_guard lock(mutex_);
  for (auto& [name, entry] : table_) {
    if (!ours.contains(name)) {
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
  auto assembled = assemble(entry.config, workshop_, hooks(), entry.settled);
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
    if (!done || !*done) {
      const std::lock_guard lock(finished_mutex_);
      finished_replays_.insert(finished_replays_.begin(), finished.begin(), finished.end());
      if (!done) return fail(done.error());
      return {};
    }
    finished.pop_front();
  }
  return {};
}

/// The lease session is gone, and every lease with it: pipelines end at once, committing nothing
/// that a new owner would not also accept.
void Coordinator::lose_everything(const Error& error) {
  lease_.lost();
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
  // The leases are kept meanwhile: no other instance may take over what still ends here.
  bool lost = false;
  while (!all_ended() && !drain.passed() && !aborted_ && !lost) {
    changed_.wait_for(lock, milliseconds(2));  // another instance waits for the leases
    if (session_ && session_->ok() && SteadyClock::now() >= next_beat_) {
      lock.unlock();
      lost = !renew({}) && !session_->ok();
      lock.lock();
    }
  }
  if (lost) lease_.lost();
  std::vector<Assembled> ending;
  for (auto& [name, entry] : table_) {
    if (entry->assembled.pipeline) ending.push_back(std::exchange(entry->assembled, {}));
  }
  lock.unlock();
  end(std::move(ending));
  if (!session_ || !session_->ok()) return;
  const auto closed = session_->close({});
  if (!closed) log::failure("database", "", closed.error());
  session_.reset();
}

}  // namespace relay::coordinator
