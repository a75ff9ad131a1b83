#include "inbox/target.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <utility>

namespace relay::inbox {

namespace {

using postgres::Connection;
using postgres::Param;

/// Where the table is, and which column of it holds what, as far as the catalog knows.
struct Place {
  std::string schema;
  std::string table;
  std::map<std::string, std::string> columns;
};

Param text_of(const std::optional<std::int64_t>& number) {
  return number ? Param(std::to_string(*number)) : Param();
}

Param text_of(const std::optional<bool>& value) {
  return value ? Param(*value ? "true" : "false") : Param();
}

Param unless_empty(const std::string& text) {
  return text.empty() ? Param() : Param(text);
}

std::string wanted_name(const Options& options) {
  return options.inbox_name.empty() ? options.inbox_table : "inbox_" + options.inbox_name;
}

/// Our schema is not installed there, or is one without inboxes.
bool lacks_database_side(const Error& error) {
  return error.code == "3F000" || error.code == "42883";
}

/// A table that is not ours: the functions of the database side need not be able to see it.
Result<std::optional<Place>> find_plain_table(Connection& connection, const Options& options,
                                              Deadline deadline, std::stop_token stop) {
  if (options.inbox_table.empty()) return std::optional<Place>();
  const auto found = connection.query(
      "select n.nspname, c.relname from pg_catalog.pg_class c "
      "join pg_catalog.pg_namespace n on n.oid = c.relnamespace "
      "where c.oid = pg_catalog.to_regclass($1)",
      {options.inbox_table}, deadline, std::move(stop));
  if (!found) return fail(found.error());
  if (found->empty()) return std::optional<Place>();
  return Place{std::string(found->text(0, 0)), std::string(found->text(0, 1)), {}};
}

Result<postgres::Rows> ask_database_side(Connection& connection, const Options& options,
                                         Deadline deadline, std::stop_token stop) {
  return connection.query(
      "select o.table_schema, o.table_name, c.field, c.name "
      "from pgtrickle.relay_open_inbox($1, $2, $3, $4, $5, $6, $7) o "
      "left join lateral pg_catalog.jsonb_each_text(o.columns) c (field, name) on true",
      {unless_empty(options.inbox_name), unless_empty(options.inbox_table),
       text_of(options.max_retries), options.schedule, text_of(options.with_dead_letter),
       text_of(options.retention_hours), Param(options.looks_only ? "true" : "false")},
      deadline, std::move(stop));
}

Result<std::optional<Place>> find_place(Connection& connection, const Options& options,
                                        Deadline deadline, std::stop_token stop) {
  const auto opened = ask_database_side(connection, options, deadline, stop);
  if (opened && !opened->empty()) {
    Place place{std::string(opened->text(0, 0)), std::string(opened->text(0, 1)), {}};
    for (int row = 0; row < opened->size(); ++row) {
      if (opened->is_null(row, 2)) continue;
      place.columns[std::string(opened->text(row, 2))] = opened->text(row, 3);
    }
    return place;
  }
  const bool not_there = opened || opened.error().code == "42704";
  if (!not_there && !lacks_database_side(opened.error())) return fail(opened.error());
  auto plain = find_plain_table(connection, options, deadline, std::move(stop));
  if (!plain || *plain || opened) return plain;
  if (not_there) return fail(opened.error());
  return fail(ErrorClass::misconfigured, opened.error().code,
              fmt::format("{} has no table {}, and the database side that could make it is not "
                          "installed there, or is older",
                          connection.endpoint(), wanted_name(options)),
              "run `pgtrickle-relay init` against that database, or name a table that is there");
}

/// The column for a field: as the pipeline says, as the catalog says, or by the field's own name.
std::string column_for(InboxField field, const Options& options, const Place& place) {
  const std::string name(to_string(field));
  for (const auto* map : {&options.column_map, &place.columns}) {
    if (const auto found = map->find(name); found != map->end()) return found->second;
  }
  return field == InboxField::subject ? std::string() : name;
}

ColumnKind kind_of(std::string_view type) {
  if (type == "json" || type == "jsonb") return ColumnKind::json;
  return type == "bytea" ? ColumnKind::bytes : ColumnKind::text;
}

Error cannot_take(const Target& target, std::string_view field, std::string_view column) {
  return {ErrorClass::misconfigured,
          "inbox_column",
          fmt::format("table {} has no column \"{}\" for {}", target.table, column, field),
          fmt::format("name the column that takes it: column_map = {{\"{}\": \"...\"}}", field),
          {}};
}

Result<void> read_columns(Connection& connection, const Options& options, const Place& place,
                          Target& target, Deadline deadline, std::stop_token stop) {
  const auto rows = connection.query(
      "select a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), "
      "pg_catalog.has_table_privilege(a.attrelid, 'insert') "
      "and pg_catalog.has_table_privilege(a.attrelid, 'select'), current_user "
      "from pg_catalog.pg_attribute a "
      "where a.attrelid = pg_catalog.to_regclass($1) and a.attnum > 0 and not a.attisdropped",
      {target.table}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  std::map<std::string, std::string, std::less<>> types;
  for (int row = 0; row < rows->size(); ++row) {
    types.emplace(rows->text(row, 0), rows->text(row, 1));
    if (!rows->boolean(row, 2)) {
      return fail(ErrorClass::misconfigured, "42501",
                  fmt::format("{}: the role {} may not write to table {}", connection.endpoint(),
                              rows->text(row, 3), target.table),
                  fmt::format("GRANT SELECT, INSERT ON {} TO {};", target.table,
                              connection.quote_identifier(rows->text(row, 3))));
    }
  }
  for (const std::string_view name : field_names()) {
    const InboxField field = *find_field(name);
    const std::string column = column_for(field, options, place);
    if (column.empty()) continue;
    const auto type = types.find(column);
    if (type != types.end()) {
      target.columns.push_back({field, column, type->second, kind_of(type->second)});
    } else if (field == InboxField::event_id || field == InboxField::payload ||
               options.column_map.count(std::string(name)) > 0) {
      return fail(cannot_take(target, name, column));
    }
  }
  return {};
}

}  // namespace

std::string insert_statement(const Target& target, std::string_view event_id) {
  std::string names;
  std::string arrays;
  std::string elements;
  std::string values;
  std::string aliases;
  std::string id_value;
  for (std::size_t i = 0; i < target.columns.size(); ++i) {
    const Target::Column& column = target.columns[i];
    const std::string_view separator = i == 0 ? "" : ", ";
    names += fmt::format("{}{}", separator, Connection::quote_identifier(column.name));
    const std::string array = fmt::format("pg_catalog.unnest(${}::pg_catalog.{}[])", i + 1,
                                          column.kind == ColumnKind::bytes ? "bytea" : "text");
    arrays += fmt::format("{}{}", separator, array);
    elements += fmt::format("{}{} as v{}", separator, array, i + 1);
    aliases += fmt::format("{}v{}", separator, i + 1);
    const std::string value = fmt::format("x.v{}::{}", i + 1, column.type);
    if (column.field == InboxField::event_id) id_value = value;
    values += fmt::format("{}{}", separator, value);
  }
  // Outside a transaction block the setting ends with this statement, and its commit obeys it. A
  // setting that waits for standbys too is left as it is.
  const std::string_view durable =
      "(select case when pg_catalog.current_setting('synchronous_commit') in ('off', 'local') "
      "then pg_catalog.set_config('synchronous_commit', 'on', true) else '' end) is not null";
  if (target.ids_are_text) {
    // In a select list the arrays are taken apart row by row; a function in FROM stores all first.
    return fmt::format(
        "insert into {} ({}) select {} from (select {}) x where {} "
        "on conflict ({}) do nothing returning {}",
        target.table, names, values, elements, durable, event_id, event_id);
  }
  // The equality of a type that users made is not looked up: the ids are compared as they are
  // written.
  const auto comparable = [&](std::string_view id) {
    return target.ids_are_of_users ? fmt::format("pg_catalog.format('%s', {})", id)
                                   : std::string(id);
  };
  return fmt::format(
      "with x as materialized (select * from rows from ({0}) with ordinality u ({1}, n)), "
      "w as (insert into {2} ({3}) select {4} from x where {5} order by x.n "
      "on conflict ({6}) do nothing returning {6} as id) "
      "select pg_catalog.min(x.n) from w join x on {7} = {8} group by {8}",
      arrays, aliases, target.table, names, values, durable, event_id, comparable(id_value),
      comparable("w.id"));
}

/// A plan of an insert takes the lock that the insert takes, and does nothing else.
Result<void> see_that_it_takes_rows(Connection& connection, const Target& target, Deadline deadline,
                                    std::stop_token stop) {
  const auto planned = connection.query(
      fmt::format("explain (costs off) insert into {} default values", target.table), {}, deadline,
      std::move(stop));
  if (planned) return {};
  Error error = planned.error();
  if (error.code == "timeout") {
    error.message = fmt::format("table {} takes no rows for now: {}", target.table, error.message);
    error.remedy = "another session holds a lock on it (see pg_locks), or the server is busy";
  }
  return fail(std::move(error));
}

Result<Target> open_target(Connection& connection, const Options& options, Deadline deadline,
                           std::stop_token stop) {
  auto place = find_place(connection, options, deadline, stop);
  if (!place) return fail(place.error());
  Target target;
  if (!*place) return target;
  target.table = fmt::format("{}.{}", connection.quote_identifier((*place)->schema),
                             connection.quote_identifier((*place)->table));
  if (auto read = read_columns(connection, options, **place, target, deadline, std::move(stop));
      !read) {
    return fail(read.error());
  }
  const auto id = std::find_if(
      target.columns.begin(), target.columns.end(),
      [](const Target::Column& column) { return column.field == InboxField::event_id; });
  target.ids_are_text = id->type == "text" || id->type.starts_with("character varying");
  target.ids_are_of_users = id->type.find('.') != std::string::npos;  // qualified: not pg_catalog's
  target.insert = insert_statement(target, connection.quote_identifier(id->name));
  return target;
}

}  // namespace relay::inbox
