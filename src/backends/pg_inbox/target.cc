#include "backends/pg_inbox/target.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "backends/pg_inbox/column_choice.h"
#include "backends/pg_inbox/statements.h"
#include "backends/pg_inbox/table_facts.h"

namespace relay::pg_inbox {

namespace {

using postgres::Connection;
using postgres::Param;

/// How long to wait for a lock on the table before reporting it.
constexpr std::chrono::seconds kLockWait{5};

/// The table and its columns, as far as the catalog of inboxes knows them.
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

/// The relay's schema is not installed there, or is an old one without inboxes.
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

/// Plans the statement without running it, which takes the same lock. PostgreSQL reports why it
/// would refuse every row, or a lock on the table shows.
Result<void> plan_insert(Connection& connection, const Target& target, Deadline deadline,
                         std::stop_token stop) {
  const std::vector<std::string_view> none(target.columns.size());
  const auto planned =
      connection.query_binary("explain " + target.insert, none,
                              deadline.earlier(Deadline::after(kLockWait)), std::move(stop));
  if (planned) return {};
  if (planned.error().code == "timeout") {
    return fail(
        ErrorClass::transient, "timeout",
        fmt::format("table {} takes no rows for now: {}", target.table, planned.error().message),
        "another session holds a lock on it (see pg_locks), or the server is busy");
  }
  if (planned.error().error_class != ErrorClass::misconfigured) return fail(planned.error());
  Error error = planned.error().in_context(fmt::format("table {} takes no messages", target.table));
  // The server's hint (INSTEAD OF triggers) does not help: ON CONFLICT needs the index of a table.
  error.remedy =
      error.code == "42501"
          ? "grant the relay's role USAGE on the schemas of the table and of its types"
          : "name a table without rules whose event_id is unique, or a plain view of one";
  return fail(std::move(error));
}

}  // namespace

std::vector<Target::Column> Target::compared() const {
  constexpr std::array kFields = {InboxField::event_id, InboxField::event_type,
                                  InboxField::aggregate_id, InboxField::payload};
  std::vector<Column> found;
  for (const InboxField field : kFields) {
    const auto column = std::find_if(columns.begin(), columns.end(),
                                     [&](const Column& c) { return c.field == field; });
    if (column != columns.end()) found.push_back(*column);
  }
  return found;
}

Result<Target> open_target(Connection& connection, const Options& options, Deadline deadline,
                           std::stop_token stop) {
  auto place = find_place(connection, options, deadline, stop);
  if (!place) return fail(place.error());
  if (!*place) return Target{};
  const std::string table = fmt::format("{}.{}", connection.quote_identifier((*place)->schema),
                                        connection.quote_identifier((*place)->table));
  const auto facts = read_table(connection, table, deadline, stop);
  if (!facts) return fail(facts.error());
  auto target = choose_columns(*facts, options, (*place)->columns);
  if (!target) return fail(target.error().in_context(connection.endpoint()));
  target->insert = insert_statement(*target);
  target->look = look_statement(*target);
  if (auto planned = plan_insert(connection, *target, deadline, std::move(stop)); !planned) {
    return fail(planned.error());
  }
  return target;
}

}  // namespace relay::pg_inbox
