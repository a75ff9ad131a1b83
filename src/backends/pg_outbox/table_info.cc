#include "backends/pg_outbox/table_info.h"

#include <fmt/core.h>

#include <map>
#include <utility>

namespace relay::pg_outbox {

namespace {

using postgres::Connection;

using Types = std::map<std::string, std::string, std::less<>>;  // by column

Result<void> find_table(Connection& connection, const Options& options, TableInfo& info,
                        Deadline deadline, std::stop_token stop) {
  const auto rows = connection.query(
      "select pg_catalog.format('%I.%I', n.nspname, c.relname), c.oid, c.relname, "
      "pg_catalog.md5(s.system_identifier || '/' || d.oid || '/' || c.oid)::uuid, "
      "pg_catalog.pg_is_in_recovery() "
      "from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace "
      "cross join pg_catalog.pg_control_system() s "
      "join pg_catalog.pg_database d on d.datname = current_database() "
      "where c.oid = pg_catalog.to_regclass($1)",
      {options.table}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  if (rows->empty()) {
    return fail(misconfigured(
        "no_table", fmt::format("{} has no table {}", connection.endpoint(), options.table),
        "write its name as schema.table, and see that the user of the url may use the schema"));
  }
  if (rows->boolean(0, 4)) {
    return fail(misconfigured("standby", fmt::format("{} is a standby", connection.endpoint()),
                              "point url at the primary; with several hosts in it, add "
                              "target_session_attrs=read-write"));
  }
  info.table = rows->text(0, 0);
  info.oid = rows->text(0, 1);
  info.incarnation = rows->text(0, 3);
  TableShape shape;
  shape.name = rows->text(0, 2);
  info.shape = std::make_shared<const TableShape>(std::move(shape));
  return {};
}

Result<Types> column_types(Connection& connection, const TableInfo& info, Deadline deadline,
                           std::stop_token stop) {
  const auto rows = connection.query(
      "select a.attname, pg_catalog.format_type(a.atttypid, null) from pg_catalog.pg_attribute a "
      "where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped",
      {info.oid}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  Types types;
  for (int row = 0; row < rows->size(); ++row)
    types.emplace(rows->text(row, 0), rows->text(row, 1));
  return types;
}

/// Ids that nothing but the table's own inserts draws, one by one.
Result<void> check_ids(Connection& connection, const Options& options, TableInfo& info,
                       Deadline deadline, std::stop_token stop) {
  const auto rows = connection.query(
      "select s.seqrelid::pg_catalog.regclass, s.seqcache, s.seqincrement, s.seqcycle "
      "from pg_catalog.pg_sequence s where s.seqrelid = "
      "pg_catalog.pg_get_serial_sequence($1, $2)::pg_catalog.regclass",
      {info.table, options.id_column}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  if (rows->empty()) {
    return fail(misconfigured(
        "table_ids",
        fmt::format("the ids of {} are not drawn by its inserts from a sequence of its own: rows "
                    "could be skipped",
                    info.table),
        "use an identity column, or add a column of type xid8 with default pg_current_xact_id() "
        "and "
        "name it in xid_column"));
  }
  info.sequence = rows->text(0, 0);
  if (rows->integer(0, 1) != 1 || rows->integer(0, 2) != 1 || rows->boolean(0, 3)) {
    return fail(misconfigured(
        "table_ids",
        fmt::format("the ids of {} are not drawn one by one: rows could be skipped", info.table),
        fmt::format("ALTER SEQUENCE {} CACHE 1 INCREMENT 1 NO CYCLE;", info.sequence)));
  }
  return {};
}

Result<void> check_columns(const Options& options, const TableInfo& info, const Types& types) {
  const std::pair<std::string_view, const std::string*> columns[] = {
      {"id_column", &options.id_column},
      {"xid_column", &options.xid_column},
      {"payload_column", &options.payload_column},
      {"event_id_column", &options.event_id_column},
      {"event_type_column", &options.event_type_column},
      {"key_column", &options.key_column},
      {"headers_column", &options.headers_column},
      {"created_at_column", &options.created_at_column}};
  for (const auto& [option, column] : columns) {
    if (column->empty() || types.contains(*column)) continue;
    return fail(misconfigured(
        "no_column", fmt::format("{} has no column \"{}\" ({})", info.table, *column, option),
        fmt::format("set {} to a column that is there", option)));
  }
  const std::string& id = types.at(options.id_column);
  if (id != "bigint" && id != "integer" && id != "smallint") {
    return fail(misconfigured(
        "table_ids",
        fmt::format("column \"{}\" of {} is {}, not an integer", options.id_column, info.table, id),
        "set id_column to the increasing id"));
  }
  if (!options.xid_column.empty() && types.at(options.xid_column) != "xid8") {
    return fail(misconfigured("table_ids",
                              fmt::format("column \"{}\" of {} is {}, not xid8", options.xid_column,
                                          info.table, types.at(options.xid_column)),
                              "make it xid8 not null default pg_current_xact_id()"));
  }
  return {};
}

void describe_payload(const Options& options, const Types& types, TableInfo& info) {
  const std::string type =
      options.payload_column.empty() ? "jsonb" : types.at(options.payload_column);
  info.payload_is_bytes = type == "bytea";
  info.content_type = type == "json" || type == "jsonb" ? "application/json"
                      : info.payload_is_bytes           ? "application/octet-stream"
                                                        : "text/plain";
}

/// The statement for a page: behind $1 (and $2, the id inside a transaction), at most $3 rows.
std::string page_statement(Connection& connection, const Options& options, const TableInfo& info,
                           std::int64_t max_record_bytes) {
  const auto column = [&](const std::string& name, std::string_view type) {
    if (name.empty()) return fmt::format("null::{}", type);
    return fmt::format("t.{}::{}", connection.quote_identifier(name), type);
  };
  const std::string id = column(options.id_column, "bigint");
  const std::string payload = options.payload_column.empty() ? "pg_catalog.to_jsonb(t.*)::text"
                              : info.payload_is_bytes ? column(options.payload_column, "bytea")
                                                      : column(options.payload_column, "text");
  const std::string xid =
      info.by_xid ? fmt::format("t.{}", connection.quote_identifier(options.xid_column)) : "";
  const std::string where =
      info.by_xid ? fmt::format(
                        "{0} < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())"
                        " and {0} >= $1::text::xid8"
                        " and ({0} > $1::text::xid8 or {1} > $2::bigint)",
                        xid, id)
                  : fmt::format("{} > $1::bigint and $2::bigint is not null", id);
  return fmt::format(
      "select {id}, {xid_out}, pg_catalog.floor(extract(epoch from {created}) * 1e6)::bigint, "
      "{event}, {type}, {key}, {headers}, "
      "case when pg_catalog.octet_length(p.v) <= {max} then p.v end, pg_catalog.octet_length(p.v), "
      "pg_catalog.md5(coalesce(p.v, '') || '{incarnation}') "
      "from {table} t cross join lateral (select {payload} as v offset 0) p "
      "where {where} order by {order} limit $3",
      fmt::arg("id", id), fmt::arg("xid_out", info.by_xid ? xid + "::text::bigint" : "0"),
      fmt::arg("created", column(options.created_at_column, "timestamptz")),
      fmt::arg("event", column(options.event_id_column, "text")),
      fmt::arg("type", column(options.event_type_column, "text")),
      fmt::arg("key", column(options.key_column, "text")),
      fmt::arg("headers", column(options.headers_column, "jsonb")),
      fmt::arg("incarnation", info.incarnation), fmt::arg("max", max_record_bytes),
      fmt::arg("table", info.table), fmt::arg("payload", payload), fmt::arg("where", where),
      fmt::arg("order", info.by_xid ? fmt::format("{}, t.{}", xid,
                                                  connection.quote_identifier(options.id_column))
                                    : "t." + connection.quote_identifier(options.id_column)));
}

}  // namespace

Result<TableInfo> open_table(Connection& connection, const Options& options,
                             std::int64_t max_record_bytes, Deadline deadline,
                             std::stop_token stop) {
  TableInfo info;
  info.by_xid = !options.xid_column.empty();
  info.id_column = connection.quote_identifier(options.id_column);
  if (auto found = find_table(connection, options, info, deadline, stop); !found) {
    return fail(found.error());
  }
  const auto types = column_types(connection, info, deadline, stop);
  if (!types) return fail(types.error());
  if (auto checked = check_columns(options, info, *types); !checked) return fail(checked.error());
  if (!info.by_xid) {
    auto checked = check_ids(connection, options, info, deadline, stop);
    if (!checked) return fail(checked.error());
  }
  describe_payload(options, *types, info);
  if (options.payload_column.empty()) {
    auto columns = outbox::read_columns(connection, info.oid, deadline, stop);
    if (!columns) return fail(columns.error());
    info.columns = std::move(*columns);
  }
  info.page = page_statement(connection, options, info, max_record_bytes);
  return info;
}

}  // namespace relay::pg_outbox
