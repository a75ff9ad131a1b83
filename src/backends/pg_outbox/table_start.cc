#include "backends/pg_outbox/table_start.h"

#include <fmt/core.h>

#include "core/pause.h"
#include "outbox/horizon.h"
#include "outbox/look.h"

namespace relay::pg_outbox {

namespace {

using postgres::Connection;

constexpr std::chrono::seconds kTimeout{30};
// Where a writer stays open, the table is read from its beginning, which may take long.
constexpr std::chrono::seconds kWaitForWriters{1};
constexpr std::chrono::milliseconds kLookEvery{5};
constexpr std::chrono::minutes kWholeTable{10};

/// A new position stands before the id of its start.
postgres::Param behind(std::int64_t id) {
  return std::to_string(id + 1);
}

/// An id up to which every row is visible to the next statement, or will never be; 0 where a writer
/// does not end.
Result<std::int64_t> settled_soon(Connection& connection, const TableInfo& table,
                                  std::stop_token stop) {
  const Deadline deadline = Deadline::after(kTimeout);
  const Deadline patience = Deadline::after(kWaitForWriters);
  const auto newest = read_newest(connection, table, deadline, stop);
  if (!newest) return fail(newest.error());
  outbox::OutboxInfo watched;
  watched.oid = table.oid;
  watched.sequence = table.sequence;
  outbox::Horizon horizon;
  while (true) {
    const auto holders = outbox::read_holders(connection, watched, deadline, stop);
    if (!holders) return fail(holders.error());
    horizon.observe(newest->drawn, *holders);
    if (!horizon.waiting() || patience.passed() || stop.stop_requested()) {
      return horizon.settled();
    }
    pause(Deadline::after(kLookEvery), stop);
  }
}

Result<state::Start> latest_by_id(Connection& connection, const TableInfo& table,
                                  std::stop_token stop) {
  const auto settled = settled_soon(connection, table, stop);
  if (!settled) return fail(settled.error());
  // One statement, so that all of it is of one moment.
  const auto found = connection.query(
      fmt::format("select '{{' || pg_catalog.string_agg("
                  "pg_catalog.format('[%s,%s)', run.first_id, run.last_id + 1), ',' "
                  "order by run.first_id) || '}}' "
                  "from (select min(r.id) as first_id, max(r.id) as last_id "
                  "from (select t.{0}::bigint as id, "
                  "t.{0}::bigint - pg_catalog.row_number() over (order by t.{0}) as run "
                  "from {1} t where t.{0} > $1::bigint) r group by r.run) run",
                  table.id_column, table.table),
      {std::to_string(*settled)}, Deadline::after(kWholeTable), std::move(stop));
  if (!found) return fail(found.error());
  state::Start start{behind(*settled)};
  if (!found->is_null(0, 0)) {
    start.skipping = std::string(found->text(0, 0));
    start.skipping_seen = true;
  }
  return start;
}

/// What a snapshot shows has ended. The position stands on the last transaction before the oldest
/// that runs, which is skipped with those that ended since.
Result<state::Start> latest_by_xid(Connection& connection, std::stop_token stop) {
  constexpr std::string_view kEnded =
      "with s as materialized (select pg_catalog.pg_current_snapshot() as s), "
      "runs as (select coalesce(pg_catalog.lag(u.xid + 1) over (order by u.xid), "
      "pg_catalog.pg_snapshot_xmin(s.s)::text::bigint - 1) as first, u.xid as until "
      "from s, lateral (select x::text::bigint as xid from pg_catalog.pg_snapshot_xip(s.s) x "
      "union select pg_catalog.pg_snapshot_xmax(s.s)::text::bigint) u) "
      "select min(r.first), '{' || pg_catalog.string_agg("
      "pg_catalog.format('[%s,%s)', r.first, r.until), ',' order by r.first) "
      "filter (where r.first < r.until) || '}' from runs r";
  const auto found = connection.query(kEnded, {}, Deadline::after(kTimeout), std::move(stop));
  if (!found) return fail(found.error());
  return state::Start{behind(found->integer(0, 0)), std::string(found->text(0, 1)), true};
}

/// A position never stands beyond what was drawn: rows up to the start will come and are skipped.
Result<state::Start> at_id(Connection& connection, const TableInfo& table, std::int64_t first,
                           std::stop_token stop) {
  const auto newest = read_newest(connection, table, Deadline::after(kTimeout), std::move(stop));
  if (!newest) return fail(newest.error());
  if (first <= newest->drawn + 1) return state::Start{std::to_string(first)};
  return state::Start{behind(newest->drawn), fmt::format("{{[{},{})}}", newest->drawn + 1, first)};
}

}  // namespace

Result<Newest> read_newest(Connection& connection, const TableInfo& table, Deadline deadline,
                           std::stop_token stop) {
  const auto rows =
      table.by_xid ? connection.query(
                         "select pg_catalog.pg_snapshot_xmin(s.s)::text::bigint, "
                         "pg_catalog.pg_snapshot_xmax(s.s)::text::bigint - 1 "
                         "from (select pg_catalog.pg_current_snapshot() as s offset 0) s",
                         {}, deadline, std::move(stop))
                   : connection.query(
                         "select l.v, l.v from (select coalesce("
                         "pg_catalog.pg_sequence_last_value($1::regclass), 0) as v offset 0) l",
                         {table.sequence}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  return Newest{rows->integer(0, 0), rows->integer(0, 1)};
}

Result<state::Start> find_start(Connection& connection, const TableInfo& table,
                                const std::string& start, std::stop_token stop) {
  if (start == "earliest") return state::Start{behind(0)};
  if (start == "latest") {
    return table.by_xid ? latest_by_xid(connection, std::move(stop))
                        : latest_by_id(connection, table, std::move(stop));
  }
  if (start == "snapshot") {
    return fail(ErrorClass::misconfigured, "bad_start",
                "a table that is read directly cannot start at a snapshot: its rows are the events",
                "set start to earliest or latest");
  }
  if (table.by_xid) {
    return fail(ErrorClass::misconfigured, "bad_start",
                "a table with an xid_column cannot start at an id",
                "set start to earliest or latest");
  }
  return at_id(connection, table, std::stoll(start), std::move(stop));
}

}  // namespace relay::pg_outbox
