#include "outbox/gone_rows.h"

#include <fmt/core.h>

#include <string>
#include <vector>

#include "outbox/outbox_info.h"
#include "state/missing_schema.h"

namespace relay::outbox {

namespace {

/// The ids as one parameter.
std::string id_array(const std::vector<SettledRows::Row>& rows) {
  std::string ids = "{";
  for (const SettledRows::Row& row : rows) {
    if (ids.size() > 1) ids += ',';
    ids += std::to_string(row.id);
  }
  return ids + '}';
}

}  // namespace

Result<void> look_for_gone_rows(postgres::Connection& connection, SettledRows& rows,
                                Deadline deadline, std::stop_token stop) {
  if (rows.empty()) return {};
  const auto memory = rows.memory();
  // An application may delete rows of a table that was adopted.
  // A standby that is promoted goes on as it was started, apart from its former primary.
  const auto server = connection.query(
      "select c.outbox_table_name, c.purged_below, extract(epoch from pg_postmaster_start_time()) "
      "from pgtrickle_internal.outbox_config c where c.incarnation = $1 and c.kind <> 'adopted'",
      {memory.incarnation}, deadline, stop);
  if (!server) return fail(state::explain_missing_schema(server.error()));
  if (server->empty()) {
    rows.forget();
    return {};
  }
  const std::string table(server->text(0, 0));
  const std::string started(server->text(0, 2));
  if (started == memory.server) return {};
  const auto found = connection.query(
      fmt::format("select o.id, o.pgt_id from {} o where o.id = any($1::bigint[]) order by o.id",
                  qualified(table)),
      {id_array(memory.rows)}, deadline, std::move(stop));
  if (!found) return fail(found.error());
  std::vector<SettledRows::Row> there;
  there.reserve(static_cast<std::size_t>(found->size()));
  for (int row = 0; row < found->size(); ++row) {
    there.push_back({found->integer(row, 0), SettledRows::tag_of(found->text(row, 1))});
  }
  rows.compare(memory, started, there, server->integer(0, 1), table);
  return {};
}

}  // namespace relay::outbox
