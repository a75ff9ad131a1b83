#include "outbox/look.h"

#include <fmt/core.h>

#include <charconv>
#include <string>

#include "state/missing_schema.h"

namespace relay::outbox {

namespace {

// One call of pg_lock_status(), so that all of it is of one moment. A writer holds exactly ROW
// EXCLUSIVE on the table, and the same on the sequence, which only drawing a value or asking for
// the last one takes; so neither autovacuum nor a deletion nor a look at the sequence is a writer.
// Where rows are not numbered by a sequence (there is none to name), the lock on the table decides.
// A prepared transaction has no pid, and its virtual id is not unique and changes with a restart of
// the server; its xid, which it holds a lock on as well, is and does not.
constexpr std::string_view kHolders =
    "with locks as materialized ("
    "  select l.locktype, l.relation, l.virtualtransaction, l.pid, l.transactionid, l.mode"
    "  from pg_catalog.pg_locks l"
    "  where l.granted and (l.locktype = 'transactionid' or l.locktype = 'relation'"
    "    and l.mode = 'RowExclusiveLock'"
    "    and l.database = (select d.oid from pg_catalog.pg_database d"
    "                      where d.datname = current_database())))"
    "select coalesce(x.transactionid::text, h.virtualtransaction), coalesce(h.pid, 0) "
    "from locks h left join locks x on h.pid is null and x.pid is null"
    "  and x.locktype = 'transactionid' and x.virtualtransaction = h.virtualtransaction"
    "  and x.mode = 'ExclusiveLock' "
    "where h.locktype = 'relation' and h.relation = $1::oid"
    "  and ($2 = '' or exists (select from locks s where s.locktype = 'relation'"
    "                          and s.relation = case when $2 ~ '^[0-9]*$' then nullif($2, '')::oid"
    "                                                else $2::regclass::oid end"
    "                          and s.virtualtransaction = h.virtualtransaction"
    "                          and s.pid is not distinct from h.pid))";

constexpr std::string_view kOldestWriter =
    "select coalesce(w.pid, 0), "
    "coalesce(extract(epoch from clock_timestamp() - w.started_at)::float8, -1) "
    "from pgtrickle.relay_open_writers($1::oid::regclass) w "
    "order by w.started_at nulls last limit 1";

}  // namespace

Result<Tip> read_tip(postgres::Connection& connection, const OutboxInfo& outbox,
                     std::int64_t beyond, Deadline deadline, std::stop_token stop) {
  const std::string first =
      outbox.adopted
          ? adopted_call(outbox, "relay_adopted_first", "$2::bigint")
          : fmt::format("(select o.id from {} o where o.id > $2::bigint order by o.id limit 1)",
                        qualified(outbox.table));
  // Of an adopted table that is gone, `first` says so; then nothing else is to be asked.
  const std::string sql =
      fmt::format("select {}, coalesce(pg_sequence_last_value($1::regclass), 0)", first);
  const auto rows =
      connection.query(sql, {outbox.sequence, std::to_string(beyond)}, deadline, std::move(stop));
  if (!rows) return fail(state::explain_missing_schema(rows.error()));
  return Tip{rows->integer(0, 1), rows->integer(0, 0)};
}

Result<std::vector<Holder>> read_holders(postgres::Connection& connection, const OutboxInfo& outbox,
                                         Deadline deadline, std::stop_token stop) {
  const auto rows =
      connection.query(kHolders, {outbox.oid, outbox.sequence}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  std::vector<Holder> holders;
  holders.reserve(static_cast<std::size_t>(rows->size()));
  for (int row = 0; row < rows->size(); ++row) {
    const int pid = static_cast<int>(rows->integer(row, 1));
    holders.push_back({std::string(rows->text(row, 0)), pid == 0, pid});
  }
  return holders;
}

Result<OpenWriter> read_oldest_writer(postgres::Connection& connection, const OutboxInfo& outbox,
                                      Deadline deadline, std::stop_token stop) {
  const auto rows = connection.query(kOldestWriter, {outbox.oid}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  OpenWriter writer;
  if (rows->empty()) return writer;
  writer.pid = static_cast<int>(rows->integer(0, 0));
  const std::string_view seconds = rows->text(0, 1);
  std::from_chars(seconds.data(), seconds.data() + seconds.size(), writer.seconds);
  return writer;
}

}  // namespace relay::outbox
