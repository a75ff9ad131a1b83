#include "backends/pg_inbox/table_facts.h"

#include <fmt/core.h>

#include <utility>

namespace relay::pg_inbox {

namespace {

using postgres::Connection;
using postgres::Rows;

// Row security: one permissive policy for the command must apply to the role, or no row passes.
constexpr std::string_view kTable =
    "select c.relkind, pg_catalog.quote_ident(current_user), "
    "pg_catalog.has_table_privilege(c.oid, 'insert') "
    "and pg_catalog.has_table_privilege(c.oid, 'select'), "
    "not pg_catalog.row_security_active(c.oid) or 'a' = any (p.commands) "
    "or '*' = any (p.commands), "
    "not pg_catalog.row_security_active(c.oid) or 'r' = any (p.commands) "
    "or '*' = any (p.commands), "
    "{}, "
    "(select pg_catalog.min(w.rulename) from pg_catalog.pg_rewrite w where w.ev_class = c.oid "
    "and w.ev_type = '3' and w.ev_enabled in ('O', 'A')), "
    "exists (select from pg_catalog.pg_class k where k.relkind = 'r' and k.relpersistence = 'u' "
    "and (k.oid = c.oid or k.oid in (select relid from pg_catalog.pg_partition_tree(c.oid)))) "
    "from pg_catalog.pg_class c "
    "cross join lateral (select pg_catalog.array_agg(y.polcmd) from pg_catalog.pg_policy y "
    "where y.polrelid = c.oid and y.polpermissive and exists ("
    "select from pg_catalog.unnest(y.polroles) r (oid) "
    "where r.oid = 0 or pg_catalog.pg_has_role(r.oid, 'usage'))) p (commands) "
    "where c.oid = pg_catalog.to_regclass($1)";

constexpr std::string_view kColumns =
    "with recursive v (number, type, modifier, not_null, has_default) as ("
    "select a.attnum, a.atttypid, a.atttypmod, false, false from pg_catalog.pg_attribute a "
    "where a.attrelid = pg_catalog.to_regclass($1) and a.attnum > 0 and not a.attisdropped "
    "union all "
    "select v.number, t.typbasetype, case when v.modifier = -1 then t.typtypmod else v.modifier "
    "end, v.not_null or t.typnotnull, v.has_default or t.typdefault is not null "
    "from v join pg_catalog.pg_type t on t.oid = v.type and t.typtype = 'd') "
    "select a.attname, pg_catalog.format_type(v.type, v.modifier), n.nspname, t.typname, "
    "t.typtype, v.modifier, o.collisdeterministic is not false, "
    "a.attnotnull and not d.present, v.not_null and not d.present, "
    "a.attgenerated <> '' or a.attidentity = 'a', "
    "(select pg_catalog.min(s.oid::pg_catalog.regclass::pg_catalog.text) "
    "from pg_catalog.pg_attrdef f join pg_catalog.pg_depend p "
    "on p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and p.objid = f.oid "
    "and p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass "
    "join pg_catalog.pg_class s on s.oid = p.refobjid "
    "where f.adrelid = a.attrelid and f.adnum = a.attnum and case when s.relkind = 'S' "
    "then not pg_catalog.has_sequence_privilege(s.oid, 'usage, update') else false end) "
    "from v join pg_catalog.pg_type t on t.oid = v.type and t.typtype <> 'd' "
    "join pg_catalog.pg_namespace n on n.oid = t.typnamespace "
    "join pg_catalog.pg_attribute a on a.attrelid = pg_catalog.to_regclass($1) "
    "and a.attnum = v.number "
    "left join pg_catalog.pg_collation o on o.oid = a.attcollation "
    "cross join lateral (select a.atthasdef or a.attidentity <> '' or v.has_default) d (present) "
    "order by a.attnum";

// An operator class that is not the server's own may treat different ids as equal.
constexpr std::string_view kUniqueIndexes =
    "select c.relname, (select pg_catalog.string_agg(pg_catalog.pg_get_indexdef(i.indexrelid, "
    "k, false), ', ' order by k) from pg_catalog.generate_series(1, i.indnkeyatts) k), "
    "case when i.indnkeyatts = 1 then a.attname end, i.indpred is not null, i.indimmediate, "
    "i.indisvalid, o.collisdeterministic is not false and p.opcnamespace = "
    "'pg_catalog'::pg_catalog.regnamespace, "
    "exists (select from pg_catalog.pg_constraint x where x.conindid = i.indexrelid "
    "and x.contype in ('p', 'u')) "
    "from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid "
    "left join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] "
    "left join pg_catalog.pg_collation o on o.oid = i.indcollation[0] "
    "left join pg_catalog.pg_opclass p on p.oid = i.indclass[0] "
    "where i.indrelid = pg_catalog.to_regclass($1) and i.indisunique order by c.relname";

char first_of(std::string_view text) {
  return text.empty() ? '\0' : text.front();
}

TableFacts::Column column_of(const Rows& rows, int row) {
  return {.name = std::string(rows.text(row, 0)),
          .type = std::string(rows.text(row, 1)),
          .type_schema = std::string(rows.text(row, 2)),
          .type_name = std::string(rows.text(row, 3)),
          .type_kind = first_of(rows.text(row, 4)),
          .modifier = static_cast<int>(rows.integer(row, 5)),
          .deterministic = rows.boolean(row, 6),
          .not_null = rows.boolean(row, 7),
          .domain_not_null = rows.boolean(row, 8),
          .generated = rows.boolean(row, 9),
          .forbidden_sequence = std::string(rows.text(row, 10))};
}

TableFacts::Index index_of(const Rows& rows, int row) {
  return {.name = std::string(rows.text(row, 0)),
          .columns = std::string(rows.text(row, 1)),
          .column = std::string(rows.text(row, 2)),
          .partial = rows.boolean(row, 3),
          .immediate = rows.boolean(row, 4),
          .valid = rows.boolean(row, 5),
          .exact = rows.boolean(row, 6),
          .constraint = rows.boolean(row, 7)};
}

}  // namespace

std::string has_before_trigger(std::string_view table) {
  // https://www.postgresql.org/docs/current/catalog-pg-trigger.html; the bits of tgtype are in
  // catalog/pg_trigger.h: 1 is FOR EACH ROW, 2 BEFORE, 4 INSERT.
  return fmt::format(
      "exists (select from pg_catalog.pg_trigger g where (g.tgrelid = {0} or g.tgrelid in "
      "(select relid from pg_catalog.pg_partition_tree({0}))) and g.tgenabled in ('O', 'A') "
      "and g.tgtype & 7 = 7)",
      table);
}

Result<TableFacts> read_table(Connection& connection, const std::string& table, Deadline deadline,
                              std::stop_token stop) {
  const std::string first = fmt::format(fmt::runtime(kTable), has_before_trigger("c.oid"));
  const auto found = connection.query(first, {table}, deadline, stop);
  if (!found) return fail(found.error());
  TableFacts facts;
  facts.table = table;
  if (found->empty()) return facts;
  facts.kind = first_of(found->text(0, 0));
  facts.role = found->text(0, 1);
  facts.may_write = found->boolean(0, 2);
  facts.lets_insert = found->boolean(0, 3);
  facts.lets_see = found->boolean(0, 4);
  facts.before_trigger = found->boolean(0, 5);
  facts.rule = found->text(0, 6);
  facts.unlogged = found->boolean(0, 7);
  const auto columns = connection.query(kColumns, {table}, deadline, stop);
  if (!columns) return fail(columns.error());
  for (int row = 0; row < columns->size(); ++row) facts.columns.push_back(column_of(*columns, row));
  const auto indexes = connection.query(kUniqueIndexes, {table}, deadline, std::move(stop));
  if (!indexes) return fail(indexes.error());
  for (int row = 0; row < indexes->size(); ++row) {
    facts.unique_indexes.push_back(index_of(*indexes, row));
  }
  return facts;
}

}  // namespace relay::pg_inbox
