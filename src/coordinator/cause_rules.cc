#include "coordinator/cause_rules.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

#include "core/text.h"

namespace relay::coordinator {

namespace {

using TimePoint = std::chrono::system_clock::time_point;

/// Rejected in a row; if there are fewer, the messages themselves may be at fault.
constexpr std::size_t kManyRejected = 5;
/// Skipped messages are never resolved: the last rejection counts for this long.
constexpr std::chrono::minutes kRejectionForgotten{10};
/// A loss that the operator has not acknowledged is shown for this long.
constexpr std::chrono::hours kLossShown{24};

std::string time_of(TimePoint at) {
  return format_timestamp(std::chrono::time_point_cast<std::chrono::seconds>(at));
}

/// Collects what is seen of one pipeline.
class Sightings {
 public:
  explicit Sightings(std::string pipeline) : pipeline_(std::move(pipeline)) {}

  void add(std::string_view code, std::string message, std::string remedy, bool certain = false,
           ErrorClass error_class = ErrorClass::transient) {
    list_.push_back({pipeline_,
                     "",
                     {error_class, std::string(code), std::move(message), std::move(remedy), {}},
                     certain});
  }
  /// What source or sink found out, and take back when it is over.
  void add(const Error& error) { list_.push_back({pipeline_, "", error, true}); }
  std::vector<status::Sighting> take() { return std::move(list_); }

 private:
  const std::string pipeline_;
  std::vector<status::Sighting> list_;
};

void see_loss(const PipelineFacts& facts, TimePoint now, Sightings& seen) {
  if (!facts.loss || now - facts.loss->at > kLossShown) return;
  const SettledRows::Loss& loss = *facts.loss;
  seen.add(
      "delivered_rows_gone",
      fmt::format("{}{} rows of outbox {} that had been delivered, between {} and {}, are not "
                  "in the database any more: a failover to a standby that lagged, or a "
                  "restored backup",
                  loss.at_least ? "at least " : "", loss.rows, loss.outbox, loss.first, loss.last),
      fmt::format("consumers have changes that the tables lack: compare them. "
                  "`pgtrickle-relay pipelines resume {}` says that this was seen. A "
                  "synchronous standby (synchronous_standby_names) prevents it",
                  facts.name),
      true);
}

void see_ends(const PipelineFacts& facts, Sightings& seen) {
  for (const auto* end : {&facts.report.source, &facts.report.sink}) {
    if (*end && (*end)->problem) seen.add(*(*end)->problem);
  }
}

void see_outbox(const PipelineFacts& facts, Sightings& seen) {
  if (!facts.outbox) return;
  if (!facts.outbox->problem.empty()) {
    const Error error = describe(*facts.outbox);
    seen.add(error.code, error.message, error.remedy, true);
  }
  if (!facts.outbox->source_dropped_at.empty()) {
    const Error error = describe_dropped(*facts.outbox);
    seen.add(error.code, error.message, error.remedy, true);
  }
}

void see_rejections(const PipelineFacts& facts, TimePoint now, Sightings& seen) {
  const auto& run = facts.report.rejections;
  const bool resolved =
      facts.skips ? now - run.last > kRejectionForgotten : facts.dead_letters.unresolved == 0;
  if (run.messages < kManyRejected || resolved || !run.error) return;
  const std::string first = run.error->remedy.empty()
                                ? fmt::format(
                                      "`pgtrickle-relay dlq list {}` shows them. Mend the "
                                      "cause",
                                      facts.name)
                                : run.error->remedy;
  seen.add("all_rejected",
           fmt::format("every message since {} was rejected, {} of them; the last one: {}",
                       time_of(run.first), run.messages, run.error->message),
           facts.skips
               ? first
               : fmt::format("{}; then `pgtrickle-relay dlq retry --all {}`", first, facts.name));
}

void see_claim_rows(const PipelineFacts& facts, Sightings& seen) {
  if (facts.dead_letters.without_claim_rows == 0) return;
  seen.add(
      "claim_rows_purged",
      fmt::format("{} large changes are in the dead letters because the rows of their claim "
                  "checks were deleted before they were delivered",
                  facts.dead_letters.without_claim_rows),
      fmt::format("send what the table holds now: SELECT pgtrickle.outbox_full_refresh(table), "
                  "of a stream table with refresh mode FULL; then `pgtrickle-relay dlq discard "
                  "ID` for each of `pgtrickle-relay dlq list {}`. A larger retention_hours of "
                  "the outbox prevents it",
                  facts.name),
      true);
}

void see_standstill(const PipelineFacts& facts, TimePoint now, Sightings& seen) {
  const PipelineReport& report = facts.report;
  if (!report.has_work || report.error) return;
  if (report.state == PipelineState::paused) {
    seen.add("paused_with_work",
             fmt::format("it is paused since {}, and records wait", time_of(report.since)),
             fmt::format("`pgtrickle-relay pipelines resume {}`", facts.name));
  } else if (!status::stalled(report, now)) {
    return;
  } else if (const auto [pid, seconds] = facts.oldest_open_writer; seconds > 0) {
    seen.add("held_back",
             fmt::format("an open transaction has written to the outbox and holds back what "
                         "follows: {}",
                         pid == 0 ? "a prepared one" : fmt::format("session {}", pid)),
             pid == 0
                 ? "COMMIT PREPARED or ROLLBACK PREPARED; pg_prepared_xacts names it"
                 : fmt::format("end its transaction, or: select pg_terminate_backend({})", pid),
             true);
  } else {
    seen.add(
        "no_progress",
        fmt::format("records wait, and none was settled since {}", time_of(report.last_progress)),
        "see whether the sink is slow or does not answer, and whether rate_limit is too low", true);
  }
}

}  // namespace

std::vector<status::Sighting> causes_of(const PipelineFacts& facts, TimePoint now) {
  Sightings seen(facts.name);
  see_loss(facts, now, seen);
  if (facts.owned) {
    see_ends(facts, seen);
    see_outbox(facts, seen);
    see_claim_rows(facts, seen);
    see_rejections(facts, now, seen);
    see_standstill(facts, now, seen);
  }
  return seen.take();
}

status::Sighting cause_of(const StreamFailure& failure) {
  const std::string shows =
      fmt::format("SELECT pgtrickle.refresh_stream_table('{}') shows the error", failure.table);
  return {"",
          failure.table,
          {ErrorClass::misconfigured,
           "refresh_failed",
           fmt::format("stream table {} {}: {}", failure.table,
                       failure.suspended ? "is suspended after failures" : "cannot be refreshed",
                       failure.error),
           failure.suspended ? fmt::format("mend the query or its tables ({}), then SELECT "
                                           "pgtrickle.alter_stream_table('{}', resume => true)",
                                           shows, failure.table)
                             : fmt::format("mend the query or its tables ({})", shows),
           {}},
          true};
}

status::Sighting cause_of(const status::OutboxProblem& outbox) {
  return {"", outbox.outbox, outbox.problem.empty() ? describe_dropped(outbox) : describe(outbox),
          true};
}

std::optional<status::Sighting> cause_of(const ReplicationSlot& slot,
                                         const config::SlotLimits& limits) {
  const std::string drop = fmt::format("SELECT pg_drop_replication_slot('{}')", slot.name);
  const auto sighting = [&slot](std::string_view code, std::string message, std::string remedy) {
    return status::Sighting{
        "",
        slot.name,
        {ErrorClass::misconfigured, std::string(code), std::move(message), std::move(remedy), {}},
        true};
  };
  if (slot.lost) {
    return sighting("slot_lost",
                    fmt::format("replication slot {} is of no use any more: the server has removed "
                                "WAL that its subscriber needs",
                                slot.name),
                    fmt::format("{}, and set the subscriber up anew, with a copy of the data. A "
                                "larger max_slot_wal_keep_size prevents it",
                                drop));
  }
  const bool nearly_lost = slot.safe && *slot.safe < slot.held;
  if (!nearly_lost && slot.held < (slot.active ? limits.active : limits.idle)) return std::nullopt;
  // Each power of two is news, each byte is not.
  const auto held = std::bit_floor(static_cast<std::uint64_t>(slot.held) >> 20);
  const auto safe = std::bit_ceil(
      static_cast<std::uint64_t>(std::max<std::int64_t>(slot.safe.value_or(0), 0) >> 20) + 1);
  return sighting(
      "slot_holds_wal",
      fmt::format("replication slot {} keeps {} MiB of WAL or more, for {}{}", slot.name, held,
                  slot.active ? "its subscriber is behind" : "no subscriber is connected to it",
                  slot.safe ? fmt::format(": it is lost when at most {} MiB more are written", safe)
                            : ", and it may fill the disk"),
      slot.active
          ? fmt::format("look for what keeps the subscriber: select * from pg_stat_replication. "
                        "Where it is not needed any more: {}",
                        drop)
          : fmt::format("start the subscriber. Where there is none any more: {}", drop));
}

std::optional<status::Sighting> cause_of(const postgres::Shortage& shortage) {
  if (shortage.refused) {
    return status::Sighting{
        "",
        "",
        {ErrorClass::transient,
         "no_free_session",
         fmt::format("the database gives the relay no further session: {}",
                     shortage.refused->message),
         "end sessions of other clients, raise max_connections (or the limit of the "
         "role or database), or lower pool_size",
         {}}};
  }
  if (!shortage.long_wait && shortage.users_wait_long) {
    return status::Sighting{
        "",
        "",
        {ErrorClass::transient,
         "adopted_reads_wait",
         fmt::format("all sessions of the pool that may read adopted tables are in use "
                     "({} of {}), and other adopted tables wait to be read",
                     shortage.for_users, shortage.size),
         "mend the tables that take long to read (slow_read), or raise pool_size",
         {}}};
  }
  if (!shortage.long_wait) return std::nullopt;
  return status::Sighting{
      "",
      "",
      {ErrorClass::transient,
       "no_free_session",
       fmt::format("none of the {} sessions of the pool is free, and operations of "
                   "pipelines wait for one",
                   shortage.size),
       "raise pool_size, or end what keeps the sessions busy: select pid, state, query "
       "from pg_stat_activity where application_name = 'pgtrickle-relay'",
       {}}};
}

}  // namespace relay::coordinator
