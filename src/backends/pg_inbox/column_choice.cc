#include "backends/pg_inbox/column_choice.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "postgres/connection.h"

namespace relay::pg_inbox {

namespace {

using Names = std::map<std::string, std::string>;
using Column = TableFacts::Column;
using Index = TableFacts::Index;

std::string in_quotes(std::string_view name) {
  return postgres::Connection::quote_identifier(name);
}

bool is_own_type(const Column& column, std::string_view name) {
  return column.type_schema == "pg_catalog" && column.type_name == name;
}

bool has_length(const Column& column) {
  return column.modifier > 4 && (is_own_type(column, "varchar") || is_own_type(column, "bpchar"));
}

ColumnKind kind_of(const Column& column) {
  if (is_own_type(column, "json") || is_own_type(column, "jsonb")) return ColumnKind::json;
  return is_own_type(column, "bytea") ? ColumnKind::bytes : ColumnKind::text;
}

Error unfit(const TableFacts& facts, std::string_view why, std::string remedy) {
  return misconfigured("inbox_table", fmt::format("table {} {}", facts.table, why),
                       std::move(remedy));
}

Error unfit_column(const TableFacts& facts, const Column& column, std::string_view why,
                   std::string remedy) {
  return misconfigured(
      "inbox_column",
      fmt::format("column {} of table {} {}", in_quotes(column.name), facts.table, why),
      std::move(remedy));
}

std::string to_text(const TableFacts& facts, const Column& column) {
  return fmt::format("ALTER TABLE {} ALTER COLUMN {} TYPE text;", facts.table,
                     in_quotes(column.name));
}

/// Kinds of relations that take INSERT ... ON CONFLICT (column). PostgreSQL refuses views that it
/// cannot write through when it plans the statement.
bool is_writable_kind(char kind) {
  return kind == 'r' || kind == 'p' || kind == 'v';
}

std::optional<Error> missing_right(const TableFacts& facts) {
  if (!facts.may_write) {
    return Error{ErrorClass::misconfigured,
                 "42501",
                 fmt::format("the role {} may not write to table {}", facts.role, facts.table),
                 fmt::format("GRANT SELECT, INSERT ON {} TO {};", facts.table, facts.role),
                 {}};
  }
  const auto policy = [&](std::string_view lacks, std::string_view clause) {
    return unfit(
        facts,
        fmt::format("has row security, and no policy lets the role {} {} a row", facts.role, lacks),
        fmt::format("CREATE POLICY relay_{0} ON {1} FOR {0} TO {2} {3};", lacks, facts.table,
                    facts.role, clause));
  };
  if (!facts.lets_insert) return policy("insert", "WITH CHECK (true)");
  if (!facts.lets_see) return policy("select", "USING (true)");
  for (const Column& column : facts.columns) {
    if (column.forbidden_sequence.empty()) continue;
    return unfit_column(
        facts, column,
        fmt::format("draws its default from the sequence {}, which the role {} "
                    "may not use",
                    column.forbidden_sequence, facts.role),
        fmt::format("GRANT USAGE ON SEQUENCE {} TO {};", column.forbidden_sequence, facts.role));
  }
  return std::nullopt;
}

std::optional<Error> unfit_relation(const TableFacts& facts) {
  if (!is_writable_kind(facts.kind)) {
    return unfit(facts, "is neither a table nor a view of one",
                 "name the table itself; one of another database with the option url");
  }
  if (!facts.rule.empty()) {
    return unfit(
        facts,
        fmt::format("has the rule {} on INSERT, with which PostgreSQL takes no ON CONFLICT",
                    in_quotes(facts.rule)),
        fmt::format("DROP RULE {} ON {}; a trigger can do its work", in_quotes(facts.rule),
                    facts.table));
  }
  if (facts.unlogged) {
    return unfit(facts, "is UNLOGGED, or has a partition that is: a crash of the server empties it",
                 fmt::format("ALTER TABLE {} SET LOGGED;", facts.table));
  }
  return missing_right(facts);
}

/// Types that store each id exactly, or treat two ids as equal only if they have the same value.
bool keeps_ids_apart(const Column& column) {
  static constexpr std::array<std::string_view, 7> kTypes = {"text", "varchar", "uuid", "int2",
                                                             "int4", "int8",    "bytea"};
  if (column.type_kind == 'e') return true;
  if (is_own_type(column, "numeric")) return column.modifier == -1;
  return std::any_of(kTypes.begin(), kTypes.end(),
                     [&](std::string_view type) { return is_own_type(column, type); });
}

std::optional<Error> unfit_id(const TableFacts& facts, const Column& id) {
  if (!keeps_ids_apart(id)) {
    return unfit_column(
        facts, id, fmt::format("has type {}, which does not keep different ids apart", id.type),
        fmt::format("{} (uuid, bigint, numeric without a scale and bytea keep "
                    "them apart too)",
                    to_text(facts, id)));
  }
  if (!id.deterministic) {
    return unfit_column(facts, id,
                        "has a nondeterministic collation, which makes different ids equal",
                        fmt::format("ALTER TABLE {} ALTER COLUMN {} TYPE text COLLATE \"C\";",
                                    facts.table, in_quotes(id.name)));
  }
  return std::nullopt;
}

/// Why an index that PostgreSQL would consider for ON CONFLICT (event_id) does not fit.
std::optional<Error> unfit_index(const TableFacts& facts, const Column& id, const Index& index) {
  const std::string again =
      fmt::format("ALTER TABLE {0} DROP CONSTRAINT {1}, ADD CONSTRAINT {1} UNIQUE ({2});",
                  facts.table, in_quotes(index.name), in_quotes(id.name));
  if (!index.immediate) {
    return unfit_column(facts, id,
                        fmt::format("is unique by {}, which is DEFERRABLE: ON CONFLICT cannot use "
                                    "it",
                                    in_quotes(index.name)),
                        again);
  }
  if (!index.exact) {
    return unfit_column(
        facts, id,
        fmt::format("is unique by {}, whose collation or operator class makes "
                    "different ids equal",
                    in_quotes(index.name)),
        fmt::format("create it again, with the collation of the column and without an "
                    "operator class: CREATE UNIQUE INDEX ON {} ({});",
                    facts.table, in_quotes(id.name)));
  }
  return std::nullopt;
}

std::string why_not_unique(const TableFacts& facts, const Column& id) {
  for (const Index& index : facts.unique_indexes) {
    const std::string name = in_quotes(index.name);
    if (index.column == id.name && !index.valid) {
      return fmt::format("must be unique, and the index {} is not valid", name);
    }
    if (index.column == id.name) {
      return fmt::format("must be unique, and the index {} is partial", name);
    }
    if (index.columns.find(id.name) != std::string::npos) {
      return fmt::format("must be unique by itself; the index {} is on ({})", name, index.columns);
    }
  }
  return "must be unique";
}

std::optional<Error> not_unique(const TableFacts& facts, const Column& id) {
  if (facts.kind == 'v') return std::nullopt;  // the index belongs to the table behind the view
  bool found = false;
  for (const Index& index : facts.unique_indexes) {
    if (index.column != id.name || index.partial || !index.valid) continue;
    if (auto error = unfit_index(facts, id, index)) return error;
    found = true;
  }
  if (found) return std::nullopt;
  return unfit_column(facts, id, why_not_unique(facts, id),
                      fmt::format("event_id must be unique: CREATE UNIQUE INDEX ON {} ({});",
                                  facts.table, in_quotes(id.name)));
}

/// A column that is NOT NULL and gets no value from any message.
std::optional<Error> left_empty(const TableFacts& facts, const Target& target) {
  for (const Column& column : facts.columns) {
    const bool refuses_null = column.domain_not_null || (column.not_null && !facts.before_trigger);
    const bool filled =
        std::any_of(target.columns.begin(), target.columns.end(),
                    [&](const Target::Column& taken) { return taken.name == column.name; });
    if (!refuses_null || filled || column.generated) continue;
    return unfit_column(
        facts, column, "is NOT NULL without a default, and no message fills it",
        fmt::format("ALTER TABLE {} ALTER COLUMN {} SET DEFAULT ...; or DROP NOT NULL, or map a "
                    "field to it: column_map = {{\"subject\": \"{}\"}}",
                    facts.table, in_quotes(column.name), column.name));
  }
  return std::nullopt;
}

/// The column for a field: named by the pipeline, by the catalog, or as the field itself.
std::string column_for(InboxField field, const Options& options, const Names& names) {
  const std::string name(to_string(field));
  for (const auto* map : {&options.column_map, &names}) {
    if (const auto found = map->find(name); found != map->end()) return found->second;
  }
  return field == InboxField::subject ? std::string() : name;
}

bool is_needed(InboxField field) {
  return field == InboxField::event_id || field == InboxField::payload;
}

/// Whether the user has chosen the column for this field.
bool is_named(InboxField field, const std::string& column, const Options& options) {
  const std::string_view name = to_string(field);
  return column != name || options.column_map.count(std::string(name)) > 0;
}

Error cannot_take(const TableFacts& facts, std::string_view field, std::string_view column) {
  return misconfigured(
      "inbox_column",
      fmt::format("table {} has no column \"{}\" for {}", facts.table, column, field),
      fmt::format("name the column that takes it: column_map = {{\"{}\": \"...\"}}", field));
}

std::optional<Error> unfit_for(InboxField field, const TableFacts& facts, const Column& column) {
  const std::string_view name = to_string(field);
  const std::string leave_out =
      is_needed(field) ? std::string()
                       : fmt::format(" Or leave it out: column_map = {{\"{}\": \"\"}}", name);
  if (column.generated) {
    return unfit_column(
        facts, column, fmt::format("is GENERATED ALWAYS: it cannot take {}", name),
        fmt::format("name another column: column_map = {{\"{}\": \"...\"}}.{}", name, leave_out));
  }
  if (is_own_type(column, "name") || is_own_type(column, "char")) {
    return unfit_column(
        facts, column,
        fmt::format("has type {}, which cuts what is longer: it cannot take {}", column.type, name),
        to_text(facts, column) + leave_out);
  }
  return std::nullopt;
}

Target::Column chosen(InboxField field, const Column& column) {
  return {field,
          column.name,
          column.type,
          fmt::format("{}.{}", in_quotes(column.type_schema), in_quotes(column.type_name)),
          kind_of(column),
          has_length(column) ? column.modifier - 4 : 0};
}

Result<void> choose(const TableFacts& facts, const Options& options, const Names& names,
                    Target& target) {
  for (const std::string_view name : field_names()) {
    const InboxField field = *find_field(name);
    const std::string column = column_for(field, options, names);
    if (column.empty()) continue;
    const auto found = std::find_if(facts.columns.begin(), facts.columns.end(),
                                    [&](const Column& c) { return c.name == column; });
    const bool needed = is_needed(field) || is_named(field, column, options);
    if (found == facts.columns.end()) {
      if (is_needed(field) || options.column_map.count(std::string(name)) > 0) {
        return fail(cannot_take(facts, name, column));
      }
      continue;
    }
    if (found->generated && !needed) continue;
    if (auto error = unfit_for(field, facts, *found)) return fail(std::move(*error));
    target.columns.push_back(chosen(field, *found));
  }
  return {};
}

}  // namespace

Result<Target> choose_columns(const TableFacts& facts, const Options& options, const Names& names) {
  if (auto error = unfit_relation(facts)) return fail(std::move(*error));
  Target target;
  target.table = facts.table;
  if (auto done = choose(facts, options, names, target); !done) return fail(done.error());
  const std::string id_name = target.compared().front().name;
  const auto id = std::find_if(facts.columns.begin(), facts.columns.end(),
                               [&](const Column& column) { return column.name == id_name; });
  for (const auto& error :
       {unfit_id(facts, *id), not_unique(facts, *id), left_empty(facts, target)}) {
    if (error) return fail(*error);
  }
  target.ids_are_text = is_own_type(*id, "text") || is_own_type(*id, "varchar");
  target.ids_can_grow = target.ids_are_text || is_own_type(*id, "bytea");
  target.may_change_rows = facts.before_trigger || facts.kind == 'v';
  return target;
}

}  // namespace relay::pg_inbox
