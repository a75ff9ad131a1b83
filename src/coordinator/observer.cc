#include "coordinator/observer.h"

#include <fmt/core.h>

#include <utility>

#include "coordinator/status_queries.h"
#include "core/deadline.h"
#include "core/log.h"

namespace relay::coordinator {

using ownership::LeaseSession;

namespace {

constexpr std::chrono::milliseconds kNumbersEvery{5000};
constexpr std::chrono::seconds kCausesEvery{1};
constexpr std::chrono::milliseconds kStatusEvery{500};

/// What the database is told of a pipeline; the times in it change with the rest.
std::string told_of(const status::PipelineStatus& status) {
  const PipelineReport& report = status.report;
  return fmt::format("{} {} {} {}", to_string(report.state), report.position.id,
                     report.lag.value_or(-1), report.error ? report.error->message : "");
}

}  // namespace

Result<void> Observer::look_for_blockers(LeaseSession& session, std::stop_token stop) {
  auto blockers =
      read_blockers(session.connection(), Deadline::after(LeaseSession::kTimeout), std::move(stop));
  if (!blockers) return fail(blockers.error());
  // Where the age of a transaction is not to be seen, it may be one of an instant: it counts when
  // two looks have found it.
  std::set<int> ageless;
  for (const status::Blocker& blocker : *blockers) {
    if (blocker.seconds < 0) ageless.insert(blocker.pid);
  }
  std::erase_if(*blockers, [&](const status::Blocker& blocker) {
    return blocker.seconds < 0 && !ageless_.contains(blocker.pid);
  });
  ageless_ = std::move(ageless);
  if (blockers->empty()) {
    log::recovered("blocked", "");
  } else {
    log::failure("blocked", "", describe(blockers->front()));
  }
  const MutexLock lock(table_.mutex);
  table_.instance.blockers = std::move(*blockers);
  return {};
}

/// Looks for what is wrong with the outboxes that pipelines of this instance read.
Result<void> Observer::look_at_outboxes(LeaseSession& session, std::stop_token stop) {
  const auto problems = read_outbox_problems(session, std::move(stop));
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
  const MutexLock lock(table_.mutex);
  for (auto& [name, entry] : table_.entries) {
    const bool owned = table_.reconciler.at(name).owned;
    const auto found = owned ? problems->find(entry.watched) : problems->end();
    entry.outbox_problem = found == problems->end() ? std::nullopt : std::optional(found->second);
  }
  return {};
}

/// Of pipelines that another instance took over after a failover: what this one settled is known
/// here alone. Those of this instance look themselves when they begin to read.
void Observer::look_for_gone_rows(std::stop_token stop) {
  std::vector<std::pair<const OwnOutboxes*, std::shared_ptr<SettledRows>>> others;
  {
    const MutexLock lock(table_.mutex);
    for (const auto& [name, entry] : table_.entries) {
      if (table_.reconciler.at(name).owned || entry.settled->empty()) continue;
      const SourceType* type = registry_.source(entry.config.source_type);
      if (type && type->own_outboxes) others.emplace_back(&*type->own_outboxes, entry.settled);
    }
  }
  constexpr std::chrono::seconds kPatience{1};
  const Deadline deadline = Deadline::after(kPatience);
  for (const auto& [outboxes, settled] : others) {
    auto lease = pool_.borrow(deadline, stop);
    // What is not looked at now is looked at next time.
    if (!lease || !outboxes->look_for_gone_rows(**lease, *settled, deadline, stop)) return;
  }
}

bool Observer::look_for_causes(bool on_duty, SchemaWatch& schema) {
  const auto now = SteadyClock::now();
  if (now < next_causes_) return false;
  next_causes_ = now + kCausesEvery;
  const auto wall = std::chrono::system_clock::now();
  std::vector<status::Sighting> seen;
  if (auto shortage = cause_of(pool_.shortage())) seen.push_back(std::move(*shortage));
  if (auto differs = schema.cause()) seen.push_back(std::move(*differs));
  if (on_duty) {
    for (const auto& failure : stream_failures_) seen.push_back(cause_of(failure));
    for (const auto& outbox : unread_problems_) seen.push_back(cause_of(outbox));
    for (const auto& slot : slots_) {
      if (auto cause = cause_of(slot, slot_limits_)) seen.push_back(std::move(*cause));
    }
  }
  bool secret_refused = false;
  const MutexLock lock(table_.mutex);
  for (auto& [name, entry] : table_.entries) {
    if (!table_.reconciler.at(name).wanted) continue;
    const PipelineFacts facts = table_.facts_of(entry);
    if (facts.report.error) schema.notice(*facts.report.error);
    // A password may have been changed: the catalog, and files that it refers to, are read anew.
    const bool refused =
        facts.report.error && facts.report.error->error_class == ErrorClass::misconfigured;
    if (refused && !entry.config.references.empty()) secret_refused = true;
    metrics_.pipeline(name)->show_ends(facts.report);
    const std::int64_t gone = facts.loss ? facts.loss->rows : 0;
    if (gone > entry.counted_gone) {
      metrics_.pipeline(name)->gone.Increment(static_cast<double>(gone - entry.counted_gone));
    }
    entry.counted_gone = gone;
    for (status::Sighting& sighting : causes_of(facts, wall)) seen.push_back(std::move(sighting));
  }
  for (const auto& [sighting, began] : table_.instance.causes.look(std::move(seen), now, wall)) {
    if (began) {
      log::failure(sighting.error.code, sighting.subject(), sighting.error);
    } else {
      log::recovered(sighting.error.code, sighting.subject());
    }
  }
  return secret_refused;
}

Result<void> Observer::measure(LeaseSession& session, SteadyClock::time_point now,
                               std::stop_token stop) {
  if (now < next_numbers_) return {};
  next_numbers_ = now + kNumbersEvery;
  if (const auto done = look_for_blockers(session, stop); !done) return done;
  if (const auto done = look_at_outboxes(session, stop); !done) return done;
  const auto counts = count_dead_letters(session, stop);
  if (!counts) return fail(counts.error());
  auto failures = read_stream_failures(session, stop);
  if (!failures) return fail(failures.error());
  stream_failures_ = std::move(*failures);
  auto slots = read_slots(session.connection(), Deadline::after(LeaseSession::kTimeout), stop);
  if (!slots) return fail(slots.error());
  slots_ = std::move(*slots);
  look_for_gone_rows(stop);
  // Before the lock is taken: it may wait for the database.
  pool_.trim();
  metrics_.pool_connections().Set(static_cast<double>(pool_.open_connections()));
  const MutexLock lock(table_.mutex);
  for (auto& [name, entry] : table_.entries) {
    if (!table_.reconciler.at(name).owned) continue;
    const auto metrics = metrics_.pipeline(name);
    const auto found = counts->find(name);
    entry.dead_letters = found == counts->end() ? DeadLetterCount() : found->second;
    metrics->dead_letters.Set(static_cast<double>(entry.dead_letters.unresolved));
    if (entry.assembled.pipeline) {
      metrics->oldest_open_writer.Set(
          entry.assembled.pipeline->source().oldest_open_writer().seconds);
    }
  }
  return {};
}

Result<void> Observer::write_statuses(LeaseSession& session, std::stop_token stop) {
  if (SteadyClock::now() < next_status_) return {};
  next_status_ = SteadyClock::now() + kStatusEvery;
  std::vector<status::PipelineStatus> changed;
  {
    const MutexLock lock(table_.mutex);
    for (const auto& [name, entry] : table_.entries) {
      const auto& placement = table_.reconciler.at(name);
      if (!placement.owned || !placement.wanted) continue;
      status::PipelineStatus status = table_.status_of(entry);
      if (told_of(status) != entry.written_status) changed.push_back(std::move(status));
    }
  }
  const auto written = write_status(session, changed, std::move(stop));
  if (!written) return fail(written.error());
  const MutexLock lock(table_.mutex);
  for (const status::PipelineStatus& status : changed) {
    if (!written->contains(status.name)) continue;
    table_.entries.at(status.name).written_status = told_of(status);
  }
  return {};
}

}  // namespace relay::coordinator
