#include "outbox/outbox_info.h"

#include <fmt/core.h>

#include <utility>

#include "state/missing_schema.h"

namespace relay::outbox {

namespace {

constexpr std::string_view kResolve =
    "select c.outbox_table_name, coalesce(c.delta_table_name, ''), c.outbox_sequence, "
    "case when c.kind = 'adopted' then c.outbox_oid "
    "else format('pgtrickle.%I', c.outbox_table_name)::regclass::oid end, c.incarnation, "
    "c.kind in ('events', 'adopted'), c.stream_table_name, coalesce(c.first_key_columns, '{}'), "
    "current_database(), "
    "coalesce(c.stream_table_schema, ''), coalesce(p.named_schema, ''), p.named_table, "
    "p.named_table is null or "
    "pgtrickle.relay_outbox_name_holds(c.incarnation, p.named_schema, p.named_table), "
    "coalesce(c.stream_table_oid, 0), c.kind = 'adopted' "
    "from pgtrickle.relay_pipeline_outbox($1, $2, $3) p "
    "join pgtrickle_internal.outbox_config c on c.incarnation = p.incarnation";

// jsonb sorts names by length, then by bytes.
constexpr std::string_view kColumns =
    "select to_json(a.attname::text)::text, row_number() over (order by a.attnum) - 1 "
    "from pg_catalog.pg_attribute a "
    "where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped "
    "order by octet_length(a.attname::text), a.attname::text collate \"C\"";

// What a statement that was refused may lack: a table, or the right to read it.
constexpr std::string_view kLacks =
    "select c.outbox_table_name, c.stream_table_name, "
    "to_regclass(format('pgtrickle.%I', c.outbox_table_name)) is null, t.relation::text, "
    "current_user "
    "from pgtrickle.relay_pipeline_outbox($1, $2, $3) p "
    "join pgtrickle_internal.outbox_config c on c.incarnation = p.incarnation "
    "left join lateral (select r.oid::regclass as relation from pg_catalog.pg_class r "
    "where r.relnamespace = 'pgtrickle'::regnamespace "
    "and r.relname in (c.outbox_table_name, c.delta_table_name) "
    "and not has_table_privilege(r.oid, 'select') order by 1 limit 1) t on true "
    "where c.kind <> 'adopted' and pg_has_role(current_user, 'pgtrickle_relay', 'usage')";

constexpr std::string_view kSequence =
    "select pg_is_in_recovery(), seqcache, seqincrement, seqcycle "
    "from pg_catalog.pg_sequence where seqrelid = $1::regclass";

Error standby(const postgres::Connection& connection) {
  return misconfigured("standby", fmt::format("{} is a standby", connection.endpoint()),
                       "point the relay at the primary; with several hosts in the URL, add "
                       "target_session_attrs=read-write");
}

}  // namespace

std::string adopted_call(const OutboxInfo& outbox, std::string_view function,
                         std::string_view arguments) {
  return fmt::format("pgtrickle.{}('{}'::uuid, {})", function, outbox.incarnation, arguments);
}

std::string qualified(const std::string& table) {
  return "pgtrickle." + postgres::Connection::quote_identifier(table);
}

Result<std::vector<Column>> read_columns(postgres::Connection& connection, const std::string& oid,
                                         Deadline deadline, std::stop_token stop) {
  const auto found = connection.query(kColumns, {oid}, deadline, std::move(stop));
  if (!found) return fail(found.error());
  std::vector<Column> columns;
  for (int i = 0; i < found->size(); ++i) {
    columns.push_back(
        {std::string(found->text(i, 0)), static_cast<std::size_t>(found->integer(i, 1))});
  }
  return columns;
}

Error explain_refusal(postgres::Connection& connection, const std::string& name,
                      const std::string& group, const std::string& pipeline, Error error,
                      Deadline deadline, std::stop_token stop) {
  if ((error.code != "42501" && error.code != "42P01") || !connection.ok()) return error;
  const auto found = connection.query(kLacks, {name, group, pipeline}, deadline, std::move(stop));
  if (!found || found->empty()) return error;
  const std::string source = connection.quote_literal(found->text(0, 1));
  if (found->boolean(0, 2)) {
    return misconfigured("outbox_dropped",
                         fmt::format("{}: outbox {} is gone: its table was dropped",
                                     connection.endpoint(), found->text(0, 0)),
                         fmt::format("make it anew: SELECT pgtrickle.disable_outbox({0}); SELECT "
                                     "pgtrickle.enable_outbox({0});",
                                     source));
  }
  if (found->is_null(0, 3)) return error;
  return misconfigured(error.code,
                       fmt::format("{}: the role {} may not read {}", connection.endpoint(),
                                   found->text(0, 4), found->text(0, 3)),
                       fmt::format("GRANT SELECT ON {} TO pgtrickle_relay;", found->text(0, 3)));
}

Result<OutboxInfo> resolve_outbox(postgres::Connection& connection, const std::string& name,
                                  const std::string& group, const std::string& pipeline,
                                  Deadline deadline, std::stop_token stop) {
  const auto found = connection.query(kResolve, {name, group, pipeline}, deadline, stop);
  if (!found) return fail(state::explain_missing_schema(found.error()));
  if (found->empty()) {
    return fail(misconfigured(
        "outbox_missing", fmt::format("{}: there is no outbox \"{}\"", connection.endpoint(), name),
        fmt::format("SELECT pgtrickle.enable_outbox({});", connection.quote_literal(name))));
  }
  OutboxInfo outbox;
  outbox.table = found->text(0, 0);
  outbox.delta_table = found->text(0, 1);
  outbox.sequence = found->text(0, 2);
  outbox.oid = found->text(0, 3);
  outbox.incarnation = found->text(0, 4);
  outbox.events = found->boolean(0, 5);
  outbox.adopted = found->boolean(0, 14);

  if (!found->is_null(0, 11)) {
    outbox.name_holds = fmt::format("pgtrickle.relay_outbox_name_holds({}, {}, {})",
                                    connection.quote_literal(outbox.incarnation),
                                    connection.quote_literal(std::string(found->text(0, 10))),
                                    connection.quote_literal(std::string(found->text(0, 11))));
  }

  TableShape shape;
  shape.name = found->text(0, 6);
  shape.database = found->text(0, 8);
  shape.schema = found->text(0, 9);
  const auto keys = connection.query(
      "select k from unnest($1::text[]) with ordinality u(k, n) "
      "order by n",
      {std::string(found->text(0, 7))}, deadline, stop);
  if (!keys) return fail(keys.error());
  for (int i = 0; i < keys->size(); ++i) shape.key_columns.emplace_back(keys->text(i, 0));
  outbox.shape = std::make_shared<const TableShape>(std::move(shape));
  auto columns = read_columns(connection, std::string(found->text(0, 13)), deadline, stop);
  if (!columns) return fail(columns.error());
  outbox.columns = std::move(*columns);
  return outbox;
}

Result<void> check_outbox(postgres::Connection& connection, const OutboxInfo& outbox,
                          Deadline deadline, std::stop_token stop) {
  if (outbox.adopted) {
    // Whatever reads it checks the rest.
    const auto recovers = connection.query("select pg_is_in_recovery()", {}, deadline, stop);
    if (!recovers) return fail(recovers.error());
    return recovers->boolean(0, 0) ? Result<void>(fail(standby(connection))) : Result<void>();
  }
  const auto sequence = connection.query(kSequence, {outbox.sequence}, deadline, stop);
  if (!sequence) return fail(state::explain_missing_schema(sequence.error()));
  if (sequence->empty()) {
    return fail(
        misconfigured("outbox_sequence",
                      fmt::format("outbox {} has no sequence {}", outbox.table, outbox.sequence),
                      "disable the outbox and enable it again"));
  }
  if (sequence->boolean(0, 0)) {
    return fail(standby(connection));
  }
  if (sequence->integer(0, 1) != 1 || sequence->integer(0, 2) != 1 || sequence->boolean(0, 3)) {
    return fail(misconfigured(
        "outbox_sequence",
        fmt::format("the ids of outbox {} are not drawn one by one: rows could be skipped",
                    outbox.table),
        fmt::format("ALTER SEQUENCE {} CACHE 1 INCREMENT 1 NO CYCLE;", outbox.sequence)));
  }
  return {};
}

}  // namespace relay::outbox
