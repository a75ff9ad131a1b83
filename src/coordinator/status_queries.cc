#include "coordinator/status_queries.h"

#include <fmt/core.h>

#include <array>
#include <charconv>
#include <utility>

#include "core/characters.h"
#include "core/secrets.h"
#include "postgres/array.h"

namespace relay::coordinator {

using ownership::LeaseSession;
using postgres::Param;

namespace {

/// A text that a server or a user chose may hold anything. One that cannot be stored would keep the
/// statuses of all pipelines from being written.
Param stored(const std::string& text) {
  return storable_text(secrets::masked(text));
}

}  // namespace

Result<std::vector<status::Blocker>> read_blockers(postgres::Connection& connection,
                                                   Deadline deadline, std::stop_token stop) {
  const auto rows = connection.query(
      "select coalesce(pid, 0), coalesce(prepared, ''), coalesce(role, ''), "
      "coalesce(application, ''), holds, coalesce(seconds, -1) from pgtrickle.relay_blockers()",
      {}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  std::vector<status::Blocker> blockers;
  for (int row = 0; row < rows->size(); ++row) {
    status::Blocker& blocker = blockers.emplace_back();
    blocker.pid = static_cast<int>(rows->integer(row, 0));
    blocker.prepared = rows->text(row, 1);
    blocker.role = rows->text(row, 2);
    blocker.application = rows->text(row, 3);
    blocker.holds = rows->text(row, 4);
    const std::string_view seconds = rows->text(row, 5);
    std::from_chars(seconds.data(), seconds.data() + seconds.size(), blocker.seconds);
  }
  return blockers;
}

Result<std::map<std::string, DeadLetterCount>> count_dead_letters(LeaseSession& session,
                                                                  std::stop_token stop) {
  const auto rows = session.query(
      "select pipeline, count(*), "
      "count(*) filter (where error_code = 'claim_check_rows_missing') "
      "from pgtrickle.relay_dlq where relay_group_id = $1 and resolved_at is null "
      "group by pipeline",
      {session.group()}, stop);
  if (!rows) return fail(rows.error());
  std::map<std::string, DeadLetterCount> counts;
  for (int row = 0; row < rows->size(); ++row) {
    counts.emplace(rows->text(row, 0),
                   DeadLetterCount{rows->integer(row, 1), rows->integer(row, 2)});
  }
  return counts;
}

Result<std::vector<StreamFailure>> read_stream_failures(LeaseSession& session,
                                                        std::stop_token stop) {
  const auto rows = session.query(
      "select format('%I.%I', pgt_schema, pgt_name), status = 'SUSPENDED', last_error "
      "from pgtrickle_internal.stream_tables where consecutive_errors > 0 and last_error is not "
      "null "
      "order by 1",
      {}, stop);
  if (!rows) return fail(rows.error());
  std::vector<StreamFailure> failures;
  for (int row = 0; row < rows->size(); ++row) {
    failures.push_back(
        {std::string(rows->text(row, 0)), rows->boolean(row, 1), std::string(rows->text(row, 2))});
  }
  return failures;
}

Result<std::vector<ReplicationSlot>> read_slots(postgres::Connection& connection, Deadline deadline,
                                                std::stop_token stop) {
  const auto rows = connection.query(
      "select s.slot_name, s.active, s.wal_status is not distinct from 'lost', "
      "coalesce(pg_wal_lsn_diff(w.now, s.restart_lsn), 0)::bigint, s.safe_wal_size "
      "from pg_replication_slots s cross join (select case when pg_is_in_recovery() "
      "then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end) w (now) "
      "where s.slot_type = 'logical' and s.database = current_database() and not s.temporary "
      "order by 1",
      {}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  std::vector<ReplicationSlot> slots;
  for (int row = 0; row < rows->size(); ++row) {
    ReplicationSlot& slot = slots.emplace_back();
    slot.name = rows->text(row, 0);
    slot.active = rows->boolean(row, 1);
    slot.lost = rows->boolean(row, 2);
    slot.held = rows->integer(row, 3);
    if (!rows->is_null(row, 4)) slot.safe = rows->integer(row, 4);
  }
  return slots;
}

Result<std::map<std::string, status::OutboxProblem>> read_outbox_problems(LeaseSession& session,
                                                                          std::stop_token stop) {
  const auto rows = session.query(
      "select outbox_sequence, outbox_table_name, coalesce(problem, ''), "
      "coalesce(to_char(source_dropped_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'), ''), "
      "exists (select from pgtrickle.relay_consumer_offsets o where o.incarnation = c.incarnation) "
      "from pgtrickle_internal.outbox_config c "
      "where problem is not null or source_dropped_at is not null",
      {}, stop);
  if (!rows) return fail(rows.error());
  std::map<std::string, status::OutboxProblem> problems;
  for (int row = 0; row < rows->size(); ++row) {
    problems.emplace(
        rows->text(row, 0),
        status::OutboxProblem{std::string(rows->text(row, 1)), std::string(rows->text(row, 2)),
                              std::string(rows->text(row, 3)), rows->boolean(row, 4)});
  }
  return problems;
}

Result<void> end_status(LeaseSession& session, std::span<const std::string> pipelines,
                        std::stop_token stop) {
  if (pipelines.empty()) return {};
  const std::vector<Param> names(pipelines.begin(), pipelines.end());
  const auto done = session.query(
      "with ended as (select s.pipeline, "
      "exists (select from pgtrickle.relay_pipelines p where p.name = s.pipeline) as is_known "
      "from pgtrickle.relay_pipeline_status s "
      "where s.relay_group_id = $1 and s.pipeline = any ($2::text[]) for update skip locked), "
      "forgotten as (delete from pgtrickle.relay_pipeline_status s using ended e "
      "where s.relay_group_id = $1 and s.pipeline = e.pipeline and not e.is_known) "
      "update pgtrickle.relay_pipeline_status s set state = 'stopped', error_class = null, "
      "last_error = null, remedy = null, lag = null, since = clock_timestamp(), "
      "updated_at = clock_timestamp() from ended e "
      "where s.relay_group_id = $1 and s.pipeline = e.pipeline and e.is_known",
      {session.group(), postgres::text_array(names)}, stop);
  if (!done) return fail(done.error());
  return {};
}

Result<std::set<std::string>> write_status(LeaseSession& session,
                                           std::span<const status::PipelineStatus> statuses,
                                           std::stop_token stop) {
  std::set<std::string> names;
  if (statuses.empty()) return names;
  std::array<std::vector<Param>, 8> columns;
  for (const status::PipelineStatus& status : statuses) {
    const PipelineReport& report = status.report;
    const auto since = std::chrono::duration<double>(report.since.time_since_epoch()).count();
    const Error* error = report.error ? &*report.error : nullptr;
    columns[0].push_back(status.name);
    columns[1].push_back(std::string(to_string(report.state)));
    columns[2].push_back(error ? Param(std::string(to_string(error->error_class))) : std::nullopt);
    columns[3].push_back(error ? stored(error->message) : std::nullopt);
    columns[4].push_back(error ? stored(error->remedy) : std::nullopt);
    columns[5].push_back(std::to_string(report.position.id));
    columns[6].push_back(report.lag ? Param(std::to_string(*report.lag)) : std::nullopt);
    columns[7].push_back(fmt::format("{:.6f}", since));
  }
  // A row that another transaction has locked, as delete_relay does, is left as it is: the leases
  // of all pipelines must not wait for it.
  const auto rows = session.query(
      "with now as (select * from unnest($3::text[], $4::text[], $5::text[], $6::text[], "
      "$7::text[], $8::bigint[], $9::bigint[], $10::float8[]) u(p, st, ec, le, re, id, lag, "
      "since)), "
      "free as (select s.pipeline from pgtrickle.relay_pipeline_status s "
      "where s.relay_group_id = $1 and s.pipeline in (select p from now) "
      "for no key update skip locked) "
      "insert into pgtrickle.relay_pipeline_status as s (relay_group_id, pipeline, worker_id, "
      "state, error_class, last_error, remedy, last_change_id, lag, since, updated_at) "
      "select $1, p, $2, st, ec, le, nullif(re, ''), id, lag, to_timestamp(since), "
      "clock_timestamp() from now where p in (select pipeline from free) "
      "or not exists (select from pgtrickle.relay_pipeline_status s "
      "where s.relay_group_id = $1 and s.pipeline = p) "
      "on conflict (relay_group_id, pipeline) do update set worker_id = excluded.worker_id, "
      "state = excluded.state, error_class = excluded.error_class, "
      "last_error = excluded.last_error, remedy = excluded.remedy, "
      "last_change_id = excluded.last_change_id, lag = excluded.lag, since = excluded.since, "
      "updated_at = excluded.updated_at returning s.pipeline",
      {session.group(), session.worker_id(), postgres::text_array(columns[0]),
       postgres::text_array(columns[1]), postgres::text_array(columns[2]),
       postgres::text_array(columns[3]), postgres::text_array(columns[4]),
       postgres::text_array(columns[5]), postgres::text_array(columns[6]),
       postgres::text_array(columns[7])},
      stop);
  if (!rows) return fail(rows.error());
  for (int row = 0; row < rows->size(); ++row) names.emplace(rows->text(row, 0));
  return names;
}

}  // namespace relay::coordinator
