// How the pipelines do: what is measured from time to time, written down and shown.
#include <fmt/core.h>

#include <mutex>
#include <thread>
#include <utility>

#include "coordinator/coordinator.h"
#include "core/deadline.h"
#include "core/log.h"
#include "outbox/gone_rows.h"

namespace relay::coordinator {

/// Looks for sessions that keep this instance waiting. Needs no lease.
Result<void> Coordinator::refresh_blockers(std::stop_token stop) {
  auto blockers = session_->blockers(std::move(stop));
  if (!blockers) return fail(blockers.error());
  if (blockers->empty()) {
    log::recovered("blocked", "");
  } else {
    log::failure("blocked", "", describe(blockers->front()));
  }
  const std::lock_guard lock(mutex_);
  blockers_ = std::move(*blockers);
  return {};
}

/// Looks for what is wrong with the outboxes that pipelines of this instance read.
Result<void> Coordinator::refresh_outboxes(std::stop_token stop) {
  const auto problems = session_->outbox_problems(std::move(stop));
  if (!problems) return fail(problems.error());
  std::set<std::string> told;
  unread_problems_.clear();
  for (const auto& [sequence, problem] : *problems) {
    told.insert(problem.outbox);
    if (!problem.has_reader) unread_problems_.push_back(problem);
  }
  for (const std::string& outbox : outboxes_told_) {
    if (!told.contains(outbox)) metrics_.outbox_problem(outbox).Set(0);
  }
  for (const std::string& outbox : told) metrics_.outbox_problem(outbox).Set(1);
  outboxes_told_.merge(told);
  const std::lock_guard lock(mutex_);
  for (auto& [name, entry] : table_) {
    const auto found = entry->owned ? problems->find(entry->watched) : problems->end();
    entry->outbox_problem = found == problems->end() ? std::nullopt : std::optional(found->second);
  }
  return {};
}

/// Of pipelines that another instance took over after a failover: what this one settled is known
/// here alone. Those of this instance look themselves when they begin to read.
void Coordinator::look_for_gone_rows(std::stop_token stop) {
  std::vector<std::shared_ptr<SettledRows>> others;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, entry] : table_) {
      const bool elsewhere = !entry->owned && entry->config.source_type == "outbox";
      if (elsewhere && !entry->settled->empty()) others.push_back(entry->settled);
    }
  }
  constexpr std::chrono::seconds kPatience{1};
  const Deadline deadline = Deadline::after(kPatience);
  for (const auto& settled : others) {
    auto lease = pool_.borrow(deadline, stop);
    // What is not looked at now is looked at next time.
    if (!lease || !outbox::look_for_gone_rows(**lease, *settled, deadline, stop)) return;
  }
}

/// Why pipelines, or this instance, are degraded: what is new of that is logged.
void Coordinator::look_for_causes() {
  constexpr std::chrono::seconds kEvery{1};
  const auto now = SteadyClock::now();
  if (now < next_causes_) return;
  next_causes_ = now + kEvery;
  const auto wall = std::chrono::system_clock::now();
  std::vector<Sighting> seen;
  if (auto shortage = cause_of(pool_.shortage())) seen.push_back(std::move(*shortage));
  if (on_duty_) {
    for (const auto& failure : stream_failures_) seen.push_back(cause_of(failure));
    for (const auto& outbox : unread_problems_) seen.push_back(cause_of(outbox));
  }
  const std::lock_guard lock(mutex_);
  for (auto& [name, entry] : table_) {
    if (entry->removed) continue;
    const PipelineFacts facts = facts_of(*entry);
    // A password may have been changed: the catalog, and files that it refers to, are read anew.
    const bool refused =
        facts.report.error && facts.report.error->error_class == ErrorClass::misconfigured;
    if (refused && !entry->config.references.empty()) catalog_version_.clear();
    const std::int64_t gone = facts.loss ? facts.loss->rows : 0;
    if (gone > entry->counted_gone) {
      metrics_.pipeline(name)->gone.Increment(static_cast<double>(gone - entry->counted_gone));
    }
    entry->counted_gone = gone;
    for (Sighting& sighting : causes_of(facts, wall)) seen.push_back(std::move(sighting));
  }
  for (const auto& [sighting, began] : causes_.look(std::move(seen), now, wall)) {
    if (began) {
      log::failure(sighting.error.code, sighting.subject(), sighting.error);
    } else {
      log::recovered(sighting.error.code, sighting.subject());
    }
  }
}

PipelineFacts Coordinator::facts_of(const Entry& entry) const {
  PipelineFacts facts;
  facts.name = entry.config.name;
  facts.owned = entry.owned;
  facts.skips = entry.config.options.on_reject == "skip";
  if (entry.assembled.pipeline) facts.report = entry.assembled.pipeline->report();
  facts.dead_letters = entry.dead_letters;
  facts.outbox = entry.outbox_problem;
  facts.loss = entry.settled->loss();
  if (entry.assembled.outbox) {
    const auto outbox = entry.assembled.outbox->status();
    facts.open_writer_seconds = outbox.oldest_open_writer_seconds;
    facts.open_writer_pid = outbox.oldest_open_writer_pid;
  }
  return facts;
}

Result<void> Coordinator::refresh_numbers(std::stop_token stop) {
  if (const auto done = refresh_blockers(stop); !done) return done;
  if (const auto done = refresh_outboxes(stop); !done) return done;
  const auto counts = session_->dead_letters(stop);
  if (!counts) return fail(counts.error());
  auto failures = session_->stream_failures(stop);
  if (!failures) return fail(failures.error());
  stream_failures_ = std::move(*failures);
  look_for_gone_rows(stop);
  // Before the lock is taken: it may wait for the database.
  pool_.trim();
  metrics_.pool_connections().Set(static_cast<double>(pool_.open_connections()));
  const std::lock_guard lock(mutex_);
  for (auto& [name, entry] : table_) {
    if (!entry->owned) continue;
    const auto metrics = metrics_.pipeline(name);
    const auto found = counts->find(name);
    entry->dead_letters = found == counts->end() ? DeadLetterCount() : found->second;
    metrics->dead_letters.Set(static_cast<double>(entry->dead_letters.unresolved));
    if (entry->assembled.outbox) {
      metrics->oldest_open_writer.Set(entry->assembled.outbox->status().oldest_open_writer_seconds);
    }
  }
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
    const bool mistake = entry.problem->error_class == ErrorClass::misconfigured;
    status.report.state = mistake ? PipelineState::misconfigured : PipelineState::retrying;
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
  if (entry.outbox_problem && !entry.outbox_problem->problem.empty()) {
    status.outbox_problem = entry.outbox_problem;
  }
  status.causes = causes_.of(entry.config.name);
  if (!status.report.error && !status.causes.empty()) {
    status.report.error = status.causes.front().error;
  }
  return status;
}

/// Writes how owned pipelines do, where that changed in something one would want to see.
Result<void> Coordinator::write_statuses(std::stop_token stop) {
  if (SteadyClock::now() < next_status_) return {};
  next_status_ = SteadyClock::now() + std::chrono::milliseconds(500);
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

Snapshot Coordinator::snapshot() const {
  // The control thread holds the lock while it starts pipelines, for one, and writes to the log.
  constexpr std::chrono::milliseconds kPatience{20};
  const SteadyClock::time_point last_round{SteadyClock::duration(last_round_.load())};
  const auto silence =
      std::chrono::duration_cast<std::chrono::seconds>(SteadyClock::now() - last_round);
  // By asking again and again: ThreadSanitizer does not know the timed lock of the steady clock.
  const Deadline patience = Deadline::after(kPatience);
  std::unique_lock lock(mutex_, std::try_to_lock);
  while (!lock.owns_lock() && !patience.passed()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (lock.try_lock()) break;
  }
  const std::lock_guard last_lock(last_snapshot_mutex_);
  if (lock) last_snapshot_ = current_snapshot();
  last_snapshot_.uptime =
      std::chrono::duration_cast<std::chrono::seconds>(SteadyClock::now() - started_);
  last_snapshot_.control_silent = silence;
  return last_snapshot_;
}

/// Under the lock.
Snapshot Coordinator::current_snapshot() const {
  Snapshot snapshot;
  for (const auto& [name, entry] : table_) {
    if (!entry->removed) snapshot.pipelines.push_back(status_of(*entry));
  }
  snapshot.database_connected = database_connected_;
  snapshot.catalog_read = catalog_read_;
  snapshot.database_error = database_error_;
  snapshot.blockers = blockers_;
  snapshot.causes = causes_.of("");
  snapshot.worker_id = worker_id_;
  snapshot.group = settings_.relay_group_id;
  snapshot.stopping = stopping_;
  return snapshot;
}

}  // namespace relay::coordinator
