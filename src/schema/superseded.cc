#include "schema/superseded.h"

#include <fmt/format.h>

#include <utility>

#include "schema/installed.h"

namespace relay::schema {

namespace {

/// The functions among them, as manifests name them.
constexpr std::string_view kFunctions =
    "select pg_catalog.format('function %I.%I(%s)', n.nspname, p.proname, "
    "pg_catalog.oidvectortypes(p.proargtypes)) "
    "from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace "
    "join pgtrickle_internal.superseded s on s.object = "
    "'function ' || p.oid::pg_catalog.regprocedure "
    "where n.nspname in ('pgtrickle', 'pgtrickle_internal', 'pgtrickle_json', 'pgtrickle_gate')";

/// How many wait for transactions, and for which sessions of those that are still open. A session
/// is named with the statement that ends it.
constexpr std::string_view kWaiting =
    "select count(distinct s.n), string_agg(distinct t.session, ', '), "
    "string_agg(distinct t.ends, ' ') "
    "from pgtrickle_internal.superseded s left join lateral ("
    "select pg_catalog.format('session %s of role %s%s', l.pid, coalesce(a.usename, '?'), "
    "' (' || nullif(a.application_name, '') || ')') as session, "
    "pg_catalog.format('SELECT pg_terminate_backend(%s);', l.pid) as ends "
    "from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity a on a.pid = l.pid "
    "where l.locktype = 'virtualxid' and l.mode = 'ExclusiveLock' "
    "and l.pid <> pg_catalog.pg_backend_pid() "
    "and l.virtualtransaction = any (s.waits_for)) t on true "
    "where s.waits_for is distinct from '{}'";

/// How many wait for none, and what uses them.
constexpr std::string_view kInUse =
    "select count(distinct s.n), string_agg(distinct pg_catalog.pg_describe_object(d.classid, "
    "d.objid, d.objsubid), ', ') "
    "from pgtrickle_internal.superseded s "
    "left join pg_catalog.pg_proc p on s.object = 'function ' || p.oid::pg_catalog.regprocedure "
    "left join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_proc'::regclass "
    "and d.refobjid = p.oid and d.deptype = 'n' "
    "where s.waits_for = '{}'";

Difference waiting(const postgres::Rows& rows) {
  const bool is_open = !rows.is_null(0, 1);
  return {false,
          fmt::format("{} objects of an earlier version stay until transactions have ended that "
                      "began before the upgrade{}",
                      rows.text(0, 0),
                      is_open ? fmt::format(": {}", rows.text(0, 1)) : " (none is open any more)"),
          fmt::format("a relay's housekeeping then drops them, or pgtrickle-relay init{}",
                      is_open ? fmt::format("; to end them: {}", rows.text(0, 2)) : "")};
}

Difference in_use(const postgres::Rows& rows) {
  return {
      false,
      fmt::format("{} objects of an earlier version stay, for others use them{}", rows.text(0, 0),
                  rows.is_null(0, 1) ? "" : fmt::format(": {}", rows.text(0, 1))),
      "SELECT object FROM pgtrickle_internal.superseded; alter or drop what uses them, and a "
      "relay's housekeeping drops them, or pgtrickle-relay init"};
}

}  // namespace

Result<std::vector<Difference>> take_superseded(Manifest& found, postgres::Connection& connection,
                                                Deadline deadline, std::stop_token stop) {
  std::vector<Difference> warnings;
  const auto functions = connection.query(kFunctions, {}, deadline, stop);
  if (!functions) {
    if (may_explain(functions.error())) return warnings;
    return fail(functions.error());
  }
  for (int row = 0; row < functions->size(); ++row) {
    if (const auto entry = found.find(functions->text(row, 0)); entry != found.end()) {
      found.erase(entry);
    }
  }
  for (const auto& [query, warning] : {std::pair{kWaiting, &waiting}, std::pair{kInUse, &in_use}}) {
    const auto rows = connection.query(query, {}, deadline, stop);
    if (!rows) return fail(rows.error());
    if (rows->integer(0, 0) > 0) warnings.push_back(warning(*rows));
  }
  return warnings;
}

}  // namespace relay::schema
