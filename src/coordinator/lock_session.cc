#include "coordinator/lock_session.h"

#include <fmt/core.h>
#include <unistd.h>

#include <array>

#include "postgres/array.h"

namespace relay::coordinator {

using postgres::Param;
using postgres::Rows;

namespace {

constexpr std::chrono::milliseconds kTimeout{4000};

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  return name.data();
}

}  // namespace

LockSession::LockSession(std::unique_ptr<postgres::Connection> connection, std::string group,
                         std::string worker_id)
    : connection_(std::move(connection)),
      group_(std::move(group)),
      worker_id_(std::move(worker_id)) {}

Result<Rows> LockSession::query(std::string_view sql, std::initializer_list<Param> params,
                                std::stop_token stop) {
  return connection_->query(sql, params, Deadline::after(kTimeout), stop);
}

Result<void> LockSession::listen(std::stop_token stop) {
  return connection_->script("listen pgtrickle_relay_config", Deadline::after(kTimeout), stop);
}

Result<std::vector<std::string>> LockSession::wait(Deadline deadline, std::stop_token stop) {
  auto heard = connection_->notifications(deadline, stop);
  if (!heard) return fail(heard.error());
  std::vector<std::string> payloads;
  for (auto& notification : *heard) payloads.push_back(std::move(notification.payload));
  return payloads;
}

Result<std::vector<Instance>> LockSession::heartbeat(std::chrono::milliseconds lease,
                                                     std::stop_token stop) {
  const auto beat = query(
      "insert into pgtrickle.relay_instances as i (relay_group_id, worker_id, hostname, pid, "
      "lock_backend_pid, version, started_at, heartbeat_at) values ($1, $2, $3, $4::int, "
      "pg_backend_pid(), $5, clock_timestamp(), clock_timestamp()) "
      "on conflict (relay_group_id, worker_id) do update set heartbeat_at = clock_timestamp(), "
      "lock_backend_pid = pg_backend_pid()",
      {group_, worker_id_, host_name(), std::to_string(::getpid()), RELAY_VERSION}, stop);
  if (!beat) return fail(beat.error());
  const auto rows = query(
      "select i.worker_id, coalesce(i.lock_backend_pid, 0), "
      "i.heartbeat_at < clock_timestamp() - make_interval(secs => $3::float8 / 1000), "
      "exists (select from pg_stat_activity a where a.pid = i.lock_backend_pid "
      "and a.application_name = $4) "
      "from pgtrickle.relay_instances i where i.relay_group_id = $1 and i.worker_id <> $2",
      {group_, worker_id_, std::to_string(lease.count()), std::string(kApplicationName)}, stop);
  if (!rows) return fail(rows.error());
  std::vector<Instance> others;
  for (int row = 0; row < rows->size(); ++row) {
    others.push_back({std::string(rows->text(row, 0)), rows->boolean(row, 2), rows->boolean(row, 3),
                      static_cast<int>(rows->integer(row, 1))});
  }
  return others;
}

Result<void> LockSession::evict(const Instance& instance, std::stop_token stop) {
  // The pid may have been given to another session since: only one that is named as ours, holds an
  // advisory lock and belongs to our role is ended.
  const auto ended = query(
      "select pg_terminate_backend(a.pid) from pg_stat_activity a where a.pid = $1::int "
      "and a.application_name = $2 and a.usename = current_user and a.datname = current_database() "
      "and exists (select 1 from pg_locks l where l.pid = a.pid and l.locktype = 'advisory')",
      {std::to_string(instance.lock_backend_pid), std::string(kApplicationName)}, stop);
  if (!ended) return fail(ended.error());
  const auto gone =
      query("delete from pgtrickle.relay_instances where relay_group_id = $1 and worker_id = $2",
            {group_, instance.worker_id}, stop);
  if (!gone) return fail(gone.error());
  return {};
}

Result<void> LockSession::sign_off(std::stop_token stop) {
  const auto gone = query(
      "with gone as (delete from pgtrickle.relay_instances where relay_group_id = $1 "
      "and worker_id = $2) select pg_advisory_unlock_all(), pg_notify('pgtrickle_relay_config', "
      "'{\"event\":\"released\"}')",
      {group_, worker_id_}, stop);
  if (!gone) return fail(gone.error());
  return {};
}

Result<std::vector<std::int64_t>> LockSession::take(std::span<const std::int64_t> keys,
                                                    std::size_t limit, std::stop_token stop) {
  std::vector<std::int64_t> taken;
  if (keys.empty() || limit == 0) return taken;
  std::string list = "{";
  for (const std::int64_t key : keys) {
    if (list.size() > 1) list += ',';
    list += std::to_string(key);
  }
  list += '}';
  const auto rows =
      query("select k from unnest($1::bigint[]) k where pg_try_advisory_lock(k) limit $2::bigint",
            {list, std::to_string(limit)}, stop);
  if (!rows) return fail(rows.error());
  for (int row = 0; row < rows->size(); ++row) taken.push_back(rows->integer(row, 0));
  return taken;
}

Result<void> LockSession::release(std::int64_t key, std::stop_token stop) {
  const auto rows = query(
      "select pg_advisory_unlock($1::bigint), "
      "pg_notify('pgtrickle_relay_config', '{\"event\":\"released\"}')",
      {std::to_string(key)}, stop);
  if (!rows) return fail(rows.error());
  return {};
}

Result<std::string> LockSession::catalog_version(std::stop_token stop) {
  const auto rows = query(
      "select concat(count(*), ' ', max(updated_at), ' ', "
      "sum(hashtextextended(name || ' ' || direction || ' ' || enabled::text, 0)::numeric)) "
      "from pgtrickle.relay_pipelines",
      {}, stop);
  if (!rows) return fail(rows.error());
  return std::string(rows->text(0, 0));
}

Result<std::vector<CatalogEntry>> LockSession::catalog(std::stop_token stop) {
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

Result<std::vector<std::pair<std::string, Control>>> LockSession::controls(std::stop_token stop) {
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

Result<void> LockSession::finish_replay(std::int64_t id, const std::string& error,
                                        std::stop_token stop) {
  const auto done = query(
      "update pgtrickle.relay_replays set finished_at = clock_timestamp(), error = nullif($2, '') "
      "where id = $1::bigint",
      {std::to_string(id), error}, stop);
  if (!done) return fail(done.error());
  return {};
}

Result<std::map<std::string, std::int64_t>> LockSession::dead_letters(std::stop_token stop) {
  const auto rows = query(
      "select pipeline, count(*) from pgtrickle.relay_dlq where relay_group_id = $1 "
      "and resolved_at is null group by pipeline",
      {group_}, stop);
  if (!rows) return fail(rows.error());
  std::map<std::string, std::int64_t> counts;
  for (int row = 0; row < rows->size(); ++row) {
    counts.emplace(rows->text(row, 0), rows->integer(row, 1));
  }
  return counts;
}

Result<void> LockSession::write_status(std::span<const PipelineStatus> statuses,
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
    columns[3].push_back(error ? Param(error->message) : std::nullopt);
    columns[4].push_back(error ? Param(error->remedy) : std::nullopt);
    columns[5].push_back(std::to_string(report.position.id));
    columns[6].push_back(report.lag ? Param(std::to_string(*report.lag)) : std::nullopt);
    columns[7].push_back(fmt::format("{:.6f}", since));
  }
  const auto written = query(
      "insert into pgtrickle.relay_pipeline_status as s (relay_group_id, pipeline, worker_id, "
      "state, error_class, last_error, remedy, last_change_id, lag, since, updated_at) "
      "select $1, p, $2, st, ec, le, nullif(re, ''), id, lag, to_timestamp(since), "
      "clock_timestamp() "
      "from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], "
      "$9::bigint[], $10::float8[]) u(p, st, ec, le, re, id, lag, since) "
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
