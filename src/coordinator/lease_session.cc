#include "coordinator/lease_session.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "core/host_name.h"
#include "core/secrets.h"
#include "postgres/array.h"

namespace relay::coordinator {

using postgres::Param;
using postgres::Rows;

namespace {

constexpr std::chrono::milliseconds kTimeout{4000};
constexpr std::chrono::milliseconds kHeartbeatEvery{1000};

std::string_view to_string(LeaseKind kind) {
  switch (kind) {
    case LeaseKind::pipeline:
      return "pipeline";
    case LeaseKind::leader:
      return "leader";
    case LeaseKind::housekeeping:
      return "housekeeping";
  }
  return "";
}

Param name_array(std::span<const std::string> names) {
  const std::vector<Param> params(names.begin(), names.end());
  return postgres::text_array(params);
}

}  // namespace

Result<std::vector<Blocker>> read_blockers(postgres::Connection& connection, Deadline deadline,
                                           std::stop_token stop) {
  const auto rows = connection.query(
      "select coalesce(pid, 0), coalesce(prepared, ''), coalesce(role, ''), "
      "coalesce(application, ''), holds, coalesce(seconds, -1) from pgtrickle.relay_blockers()",
      {}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  std::vector<Blocker> blockers;
  for (int row = 0; row < rows->size(); ++row) {
    Blocker& blocker = blockers.emplace_back();
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

LeaseSession::LeaseSession(std::unique_ptr<postgres::Connection> connection, std::string group,
                           std::string worker_id)
    : connection_(std::move(connection)),
      group_(std::move(group)),
      worker_id_(std::move(worker_id)) {}

Result<Rows> LeaseSession::query(std::string_view sql, std::initializer_list<Param> params,
                                 std::stop_token stop) {
  return connection_->query(sql, params, Deadline::after(kTimeout), stop);
}

Result<void> LeaseSession::open(std::chrono::milliseconds lease_timeout, std::stop_token stop) {
  const auto opened =
      query("select pgtrickle.relay_open_leases($1, $2, make_interval(secs => $3::float8 / 1000))",
            {group_, worker_id_, std::to_string(lease_timeout.count())}, stop);
  if (!opened) return fail(opened.error());
  token_ = opened->text(0, 0);
  // What it writes lasts no longer than the session, or is for looking at: a standby that does not
  // answer must not cost the leases.
  return connection_->script("set synchronous_commit to off; listen pgtrickle_relay_config",
                             Deadline::after(kTimeout), stop);
}

Result<std::vector<std::string>> LeaseSession::wait(Deadline deadline, std::stop_token stop) {
  auto heard = connection_->notifications(deadline, stop);
  if (!heard) return fail(heard.error());
  std::vector<std::string> payloads;
  for (auto& notification : *heard) payloads.push_back(std::move(notification.payload));
  return payloads;
}

Result<void> LeaseSession::heartbeat(std::stop_token stop) {
  const auto now = SteadyClock::now();
  if (now < next_heartbeat_) return {};
  next_heartbeat_ = now + kHeartbeatEvery;
  const auto beat = query(
      "insert into pgtrickle.relay_instances as i (relay_group_id, worker_id, hostname, pid, "
      "version, started_at, heartbeat_at) values ($1, $2, $3, $4::int, $5, clock_timestamp(), "
      "clock_timestamp()) "
      "on conflict (relay_group_id, worker_id) do update set heartbeat_at = clock_timestamp()",
      {group_, worker_id_, host_name(), std::to_string(::getpid()), RELAY_VERSION}, stop);
  if (!beat) return fail(beat.error());
  return {};
}

Result<Renewal> LeaseSession::renew(std::stop_token stop) {
  if (const auto beat = heartbeat(stop); !beat) return fail(beat.error());
  const auto relays =
      query("select worker_id, state, ends_in_ms from pgtrickle.relay_renew_leases($1::uuid)",
            {token_}, stop);
  if (!relays) return fail(relays.error());
  if (relays->empty()) {
    ended_ = true;
    return fail(ErrorClass::fenced, "leases_lost",
                "the leases of this instance had run out, and another one took them",
                "it takes part again at once; look for what held it up: a frozen machine, a cut "
                "network");
  }
  Renewal renewal;
  for (int row = 0; row < relays->size(); ++row) {
    std::string worker(relays->text(row, 0));
    const std::string_view state = relays->text(row, 1);
    if (state == "live") {
      ++renewal.live;
      renewal.first_end =
          std::min(renewal.first_end, std::chrono::milliseconds(relays->integer(row, 2)));
    } else {
      auto& list = state == "gone"      ? renewal.gone
                   : state == "expired" ? renewal.expired
                                        : renewal.older;
      list.push_back(std::move(worker));
    }
  }
  return renewal;
}

Result<void> LeaseSession::close(std::stop_token stop) {
  const auto closed = query(
      "with gone as (delete from pgtrickle.relay_instances where relay_group_id = $1 "
      "and worker_id = $2) select pgtrickle.relay_close_leases($3::uuid)",
      {group_, worker_id_, token_}, stop);
  if (!closed) return fail(closed.error());
  return {};
}

Result<std::vector<std::string>> LeaseSession::take(LeaseKind kind,
                                                    std::span<const std::string> names,
                                                    std::size_t limit, std::stop_token stop) {
  std::vector<std::string> taken;
  if (names.empty() || limit == 0) return taken;
  const auto rows =
      query("select pgtrickle.relay_take_leases($1::uuid, $2, $3::text[], $4::int)",
            {token_, std::string(to_string(kind)), name_array(names), std::to_string(limit)}, stop);
  if (!rows) return fail(rows.error());
  for (int row = 0; row < rows->size(); ++row) taken.emplace_back(rows->text(row, 0));
  return taken;
}

Result<void> LeaseSession::release(LeaseKind kind, std::span<const std::string> names,
                                   std::stop_token stop) {
  if (names.empty()) return {};
  const auto rows = query("select pgtrickle.relay_release_leases($1::uuid, $2, $3::text[])",
                          {token_, std::string(to_string(kind)), name_array(names)}, stop);
  if (!rows) return fail(rows.error());
  return {};
}

Result<std::string> LeaseSession::catalog_version(std::stop_token stop) {
  // Each transaction that writes a row gives it another xmin, whatever it writes and whenever it
  // commits; times and counters tell nothing of a transaction that commits after a later one.
  const auto rows = query(
      "select concat(count(*), ' ', md5(string_agg(concat_ws(' ', direction, row_version, name), "
      "' ' order by direction, name collate \"C\"))) from pgtrickle.relay_pipelines",
      {}, stop);
  if (!rows) return fail(rows.error());
  return std::string(rows->text(0, 0));
}

Result<std::vector<CatalogEntry>> LeaseSession::catalog(std::stop_token stop) {
  const auto rows = query(
      "select name, direction, enabled, config::text from pgtrickle.relay_pipelines order by name",
      {}, stop);
  if (!rows) return fail(rows.error());
  std::vector<CatalogEntry> entries;
  for (int row = 0; row < rows->size(); ++row) {
    entries.push_back({std::string(rows->text(row, 0)), std::string(rows->text(row, 1)),
                       rows->boolean(row, 2), std::string(rows->text(row, 3))});
  }
  return entries;
}

Result<std::vector<std::pair<std::string, Control>>> LeaseSession::controls(std::stop_token stop) {
  const auto rows = query(
      "select c.pipeline, true, 0, 0, 0, 0 from pgtrickle.relay_pipeline_control c where c.paused "
      "union all select r.pipeline, false, r.id, r.from_id, coalesce(r.to_id, 0), r.number "
      "from pgtrickle.relay_replays r where r.finished_at is null order by 3",
      {}, stop);
  if (!rows) return fail(rows.error());
  std::vector<std::pair<std::string, Control>> controls;
  for (int row = 0; row < rows->size(); ++row) {
    Control control;
    control.paused = rows->boolean(row, 1);
    if (!control.paused) {
      control.replays.push_back({rows->integer(row, 2), rows->integer(row, 3),
                                 rows->integer(row, 4), static_cast<int>(rows->integer(row, 5))});
    }
    controls.emplace_back(rows->text(row, 0), std::move(control));
  }
  return controls;
}

Result<bool> LeaseSession::finish_replay(std::int64_t id, const std::string& error,
                                         std::stop_token stop) {
  const auto done = query(
      "with free as (select r.id from pgtrickle.relay_replays r where r.id = $1::bigint "
      "for no key update skip locked), "
      "finished as (update pgtrickle.relay_replays r set finished_at = clock_timestamp(), "
      "error = nullif($2, '') from free where r.id = free.id) "
      "select exists (select from free) "
      "or not exists (select from pgtrickle.relay_replays r where r.id = $1::bigint)",
      {std::to_string(id), secrets::masked(error)}, stop);
  if (!done) return fail(done.error());
  return done->boolean(0, 0);
}

Result<std::map<std::string, DeadLetterCount>> LeaseSession::dead_letters(std::stop_token stop) {
  const auto rows = query(
      "select pipeline, count(*), "
      "count(*) filter (where error_code = 'claim_check_rows_missing') "
      "from pgtrickle.relay_dlq where relay_group_id = $1 and resolved_at is null "
      "group by pipeline",
      {group_}, stop);
  if (!rows) return fail(rows.error());
  std::map<std::string, DeadLetterCount> counts;
  for (int row = 0; row < rows->size(); ++row) {
    counts.emplace(rows->text(row, 0),
                   DeadLetterCount{rows->integer(row, 1), rows->integer(row, 2)});
  }
  return counts;
}

Result<std::vector<StreamFailure>> LeaseSession::stream_failures(std::stop_token stop) {
  const auto rows = query(
      "select format('%I.%I', pgt_schema, pgt_name), status = 'SUSPENDED', last_error "
      "from pgtrickle.pgt_stream_tables where consecutive_errors > 0 and last_error is not null "
      "order by 1",
      {}, stop);
  std::vector<StreamFailure> failures;
  // Beside the pg_trickle extension the table is that one's, and so are its failures.
  if (!rows && rows.error().code.starts_with("42")) return failures;
  if (!rows) return fail(rows.error());
  for (int row = 0; row < rows->size(); ++row) {
    failures.push_back(
        {std::string(rows->text(row, 0)), rows->boolean(row, 1), std::string(rows->text(row, 2))});
  }
  return failures;
}

Result<std::vector<Blocker>> LeaseSession::blockers(std::stop_token stop) {
  return read_blockers(*connection_, Deadline::after(kTimeout), std::move(stop));
}

Result<std::map<std::string, OutboxProblem>> LeaseSession::outbox_problems(std::stop_token stop) {
  const auto rows = query(
      "select outbox_sequence, outbox_table_name, coalesce(problem, ''), "
      "coalesce(to_char(source_dropped_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'), ''), "
      "exists (select from pgtrickle.relay_consumer_offsets o where o.incarnation = c.incarnation) "
      "from pgtrickle.pgt_outbox_config c "
      "where problem is not null or source_dropped_at is not null",
      {}, stop);
  if (!rows) return fail(rows.error());
  std::map<std::string, OutboxProblem> problems;
  for (int row = 0; row < rows->size(); ++row) {
    problems.emplace(rows->text(row, 0),
                     OutboxProblem{std::string(rows->text(row, 1)), std::string(rows->text(row, 2)),
                                   std::string(rows->text(row, 3)), rows->boolean(row, 4)});
  }
  return problems;
}

Result<void> LeaseSession::end_status(std::span<const std::string> pipelines,
                                      std::stop_token stop) {
  if (pipelines.empty()) return {};
  const auto done = query(
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
      {group_, name_array(pipelines)}, stop);
  if (!done) return fail(done.error());
  return {};
}

Result<void> LeaseSession::write_status(std::span<const PipelineStatus> statuses,
                                        std::stop_token stop) {
  if (statuses.empty()) return {};
  std::array<std::vector<Param>, 8> columns;
  for (const PipelineStatus& status : statuses) {
    const PipelineReport& report = status.report;
    const auto since = std::chrono::duration<double>(report.since.time_since_epoch()).count();
    const Error* error = report.error ? &*report.error : nullptr;
    columns[0].push_back(status.name);
    columns[1].push_back(std::string(to_string(report.state)));
    columns[2].push_back(error ? Param(std::string(to_string(error->error_class))) : std::nullopt);
    columns[3].push_back(error ? Param(secrets::masked(error->message)) : std::nullopt);
    columns[4].push_back(error ? Param(secrets::masked(error->remedy)) : std::nullopt);
    columns[5].push_back(std::to_string(report.position.id));
    columns[6].push_back(report.lag ? Param(std::to_string(*report.lag)) : std::nullopt);
    columns[7].push_back(fmt::format("{:.6f}", since));
  }
  // A row that another transaction has locked, as delete_relay does, is left as it is: the leases
  // of all pipelines must not wait for it.
  const auto written = query(
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
      "updated_at = excluded.updated_at",
      {group_, worker_id_, postgres::text_array(columns[0]), postgres::text_array(columns[1]),
       postgres::text_array(columns[2]), postgres::text_array(columns[3]),
       postgres::text_array(columns[4]), postgres::text_array(columns[5]),
       postgres::text_array(columns[6]), postgres::text_array(columns[7])},
      stop);
  if (!written) return fail(written.error());
  return {};
}

}  // namespace relay::coordinator
