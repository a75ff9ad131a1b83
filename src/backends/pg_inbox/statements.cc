#include "backends/pg_inbox/statements.h"

#include <fmt/core.h>

#include <string_view>
#include <vector>

#include "backends/pg_inbox/table_facts.h"
#include "postgres/connection.h"

namespace relay::pg_inbox {

namespace {

using Column = Target::Column;

std::string in_quotes(const Column& column) {
  return postgres::Connection::quote_identifier(column.name);
}

std::string array_of(const Column& column, std::size_t number) {
  return fmt::format("pg_catalog.unnest(${}::pg_catalog.{}[])", number,
                     column.kind == ColumnKind::bytes ? "bytea" : "text");
}

/// The value cast to the type without length or precision. The assignment to the column then
/// refuses a value that is too long, where an explicit cast would cut it. Both would cut blanks at
/// the end, so a value that ends with blanks gets a letter behind them.
std::string stored_value(const Column& column, std::size_t number) {
  if (column.limit == 0) return fmt::format("x.v{}::{}", number, column.cast);
  return fmt::format(
      "(case when pg_catalog.length(x.v{0}) > {1} then pg_catalog.concat(x.v{0}, '.') "
      "else x.v{0} end)::{2}",
      number, column.limit, column.cast);
}

/// Whether a stored value is the one that arrived. Types other than jsonb and bytea are compared by
/// their text: no operator of a user's type is called.
std::string same(const Column& column, std::size_t number) {
  const std::string stored = fmt::format("t.{}", in_quotes(column));
  const std::string arrived = fmt::format("x.v{}::{}", number, column.type);
  if (column.type == "jsonb" || column.kind == ColumnKind::bytes) {
    return fmt::format("{} is not distinct from {}", stored, arrived);
  }
  return fmt::format(
      "({0} is null) = ({1} is null) and pg_catalog.format('%s', {0}) "
      "= pg_catalog.format('%s', {1}) collate pg_catalog.\"C\"",
      stored, arrived);
}

}  // namespace

std::string insert_statement(const Target& target) {
  std::string names;
  std::string elements;
  std::string values;
  std::string id;
  for (std::size_t i = 0; i < target.columns.size(); ++i) {
    const Column& column = target.columns[i];
    const std::string_view separator = i == 0 ? "" : ", ";
    names += fmt::format("{}{}", separator, in_quotes(column));
    elements += fmt::format("{}{} as v{}", separator, array_of(column, i + 1), i + 1);
    values += fmt::format("{}{}", separator, stored_value(column, i + 1));
    if (column.field == InboxField::event_id) id = in_quotes(column);
  }
  // Outside a transaction block the setting ends with this statement, and its commit obeys it. A
  // setting that waits for standbys too is left as it is.
  const std::string_view durable =
      "(select case when pg_catalog.current_setting('synchronous_commit') in ('off', 'local') "
      "then pg_catalog.set_config('synchronous_commit', 'on', true) else '' end) is not null";
  // In a select list the arrays are unnested row by row; a function in FROM stores all rows first.
  return fmt::format(
      "insert into {} ({}) select {} from (select {}) x where {} "
      "on conflict ({}) do nothing returning {}",
      target.table, names, values, elements, durable, id, id);
}

std::string look_statement(const Target& target) {
  const std::vector<Column> columns = target.compared();
  std::string arrays;
  std::string aliases;
  std::string all_same = "true";
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const std::string_view separator = i == 0 ? "" : ", ";
    arrays += fmt::format("{}{}", separator, array_of(columns[i], i + 1));
    aliases += fmt::format("v{}, ", i + 1);
    if (i > 0) all_same += fmt::format(" and {}", same(columns[i], i + 1));
  }
  const std::string relation =
      fmt::format("pg_catalog.to_regclass(${}::pg_catalog.text)", columns.size() + 1);
  return fmt::format(
      "select pg_catalog.format('%s', x.v1::{0}), f.found, f.same, (select {1}), "
      "(select pg_catalog.row_security_active({2}::pg_catalog.oid)) "
      "from rows from ({3}) with ordinality x ({4}n) cross join lateral ("
      "select pg_catalog.count(*) > 0, coalesce(pg_catalog.bool_or({5}), false) from {6} t "
      "where t.{7} = x.v1::{0}) f (found, same) order by x.n",
      columns.front().type, has_before_trigger(relation), relation, arrays, aliases, all_same,
      target.table, in_quotes(columns.front()));
}

}  // namespace relay::pg_inbox
