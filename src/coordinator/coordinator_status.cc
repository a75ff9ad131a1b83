// How the pipelines do: what is measured from time to time, written down and shown.
#include <fmt/core.h>

#include <mutex>
#include <thread>
#include <utility>

#include "coordinator/coordinator.h"
#include "core/deadline.h"
#include "core/log.h"

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
  const std::lock_guard lock(mutex_);
  for (auto& [name, entry] : table_) {
    const auto found = entry->owned ? problems->find(entry->watched) : problems->end();
    if (found != problems->end()) {
      entry->outbox_problem = found->second;
      log::failure("outbox_problem", name, describe(found->second));
    } else if (entry->outbox_problem) {
      entry->outbox_problem.reset();
      log::recovered("outbox_problem", name);
    }
  }
  return {};
}

Result<void> Coordinator::refresh_numbers(std::stop_token stop) {
  if (const auto done = refresh_blockers(stop); !done) return done;
  if (const auto done = refresh_outboxes(stop); !done) return done;
  const auto counts = session_->dead_letters(stop);
  if (!counts) return fail(counts.error());
  // Before the lock is taken: it may wait for the database.
  pool_.trim();
  metrics_.pool_connections().Set(static_cast<double>(pool_.open_connections()));
  const std::lock_guard lock(mutex_);
  for (auto& [name, entry] : table_) {
    if (!entry->owned) continue;
    const auto metrics = metrics_.pipeline(name);
    const auto found = counts->find(name);
    metrics->dead_letters.Set(found == counts->end() ? 0 : static_cast<double>(found->second));
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
  status.outbox_problem = entry.outbox_problem;
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
  snapshot.worker_id = worker_id_;
  snapshot.group = settings_.relay_group_id;
  snapshot.stopping = stopping_;
  return snapshot;
}

}  // namespace relay::coordinator
