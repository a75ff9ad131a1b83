#include "stream_program/stream_watch.h"

#include <fmt/core.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <utility>

#include "core/deadline.h"
#include "core/pause.h"

namespace relay::stream_program {

namespace {

constexpr std::chrono::seconds kEvery{5};
constexpr std::chrono::seconds kTimeout{60};
/// pgstream.stream_status counts no further.
constexpr std::int64_t kMostCounted = 10000;

/// Not more than a few of each kind are named.
constexpr const char* kFind =
    "with found as (select pgstream.stream_status($1::bigint) as s), "
    "failed as (select k.key, k.value::bigint as n from found, jsonb_each_text(s -> "
    "'failed_events') k), "
    "problem as (select p ->> 'key' as key, format('%I.%I', p ->> 'schema_name', p ->> "
    "'table_name') as part, p ->> 'problem' as problem "
    "from found, jsonb_array_elements(s -> 'problems') p) "
    "select (s ->> 'backlog_transactions')::bigint, (s ->> 'overflow_rows')::bigint, "
    "(s ->> 'partitions_ahead')::bigint, (select coalesce(sum(n), 0) from failed), "
    "(select coalesce(string_agg(format('%s (%s)', key, n), ', '), '') "
    "from (select key, n from failed order by n desc, key limit 5) f), "
    "(select coalesce(string_agg(format('\"%s\" on %s: %s', key, part, problem), '; '), '') "
    "from (select key, part, problem from problem order by key limit 5) p) "
    "from found";

}  // namespace

StreamWatch::StreamWatch(postgres::Pool& pool, std::string stream)
    : pool_(pool),
      stream_(std::move(stream)),
      thread_([this](std::stop_token stop) { run(std::move(stop)); }) {}

StreamFindings StreamWatch::found() const {
  const MutexLock lock(mutex_);
  return found_;
}

void StreamWatch::run(std::stop_token stop) {
  do {
    Result<StreamFindings> found;
    try {
      found = ask(stop);
    } catch (const std::exception&) {
      continue;  // The pipeline tells what this process is short of.
    }
    if (!found) continue;  // The lease session tells what the database lacks.
    const MutexLock lock(mutex_);
    found_ = std::move(*found);
  } while (pause(Deadline::after(kEvery), stop));
}

Result<StreamFindings> StreamWatch::ask(std::stop_token stop) {
  const Deadline deadline = Deadline::after(kTimeout);
  auto session = pool_.borrow(deadline, stop);
  if (!session) return fail(session.error());
  const auto rows = (*session)->query(kFind, {stream_}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  const auto number = [&](int column) { return static_cast<double>(rows->integer(0, column)); };
  StreamFindings found;
  found.numbers = {
      {"backlog_transactions", "Transactions in the backlog", number(0)},
      {"overflow_rows", "Events of all streams for days without a partition; at most 10000",
       number(1)},
      {"partitions_ahead", "Days from today on that have a partition", number(2)},
      {"failed_events", "Changes whose events could not be made; at most 10000", number(3)}};
  if (rows->integer(0, 3) > 0) {
    found.problems.push_back(
        {ErrorClass::transient,
         "failed_events",
         fmt::format("the events of {}{} changes could not be made. By subscription: {}",
                     rows->integer(0, 3) < kMostCounted ? "" : "at least ", rows->integer(0, 3),
                     rows->text(0, 4)),
         "SELECT key, error_message FROM pgstream.failed_events; mend the cause, then SELECT "
         "pgstream.retry_failed() as the owner of the table",
         {}});
  }
  if (!rows->text(0, 5).empty()) {
    found.problems.push_back(
        {ErrorClass::misconfigured,
         "subscriptions",
         fmt::format("subscriptions without events: {}", rows->text(0, 5)),
         fmt::format("change or delete them; SELECT * FROM pgstream.subscription_problems({}) "
                     "lists all",
                     stream_),
         {}});
  }
  return found;
}

}  // namespace relay::stream_program
