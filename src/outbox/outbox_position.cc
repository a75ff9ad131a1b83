#include "outbox/outbox_position.h"

#include <fmt/core.h>

#include <utility>

#include "state/missing_schema.h"

namespace relay::outbox {

namespace {

using postgres::Param;

Param mark_param(const Position& position) {
  return position.mark.empty() ? Param() : Param(position.mark);
}

/// The row that a mark speaks of: at `id`, or the next one while that is being read.
std::string marked_row(const OutboxInfo& outbox, std::string_view id, std::string_view row) {
  if (outbox.adopted) {
    // There are no claim checks: nothing but a whole row is passed.
    return fmt::format(
        "(select m.pgt_id from {} m where {}::bigint = 0)",
        adopted_call(outbox, "relay_adopted_marks", fmt::format("array[{}::bigint]", id)), row);
  }
  return fmt::format(
      "(select m.pgt_id from (select o.id, o.pgt_id from {0} o "
      "where o.id >= {1}::bigint + least({2}::bigint, 1) order by o.id limit 1) m "
      "where m.id = {1}::bigint or {2}::bigint > 0)",
      qualified(outbox.table), id, row);
}

/// Whether the row that is passed is the one that was read. A row of an adopted table may have been
/// deleted since: then the sequence tells whether it was ever there.
std::string is_same_row(const OutboxInfo& outbox) {
  const std::string row = marked_row(outbox, "$5", "$6");
  if (!outbox.adopted) return "$7 = " + row;
  return fmt::format("coalesce($7 = {}, pg_sequence_last_value({}::oid::regclass) >= $5::bigint)",
                     row, outbox.sequence);
}

/// That the row of the highest id that a position skips is there.
std::string skipped_row(const OutboxInfo& outbox) {
  if (outbox.adopted) {
    return fmt::format("select from {} s where s.pgt_id = o.skipped_mark",
                       adopted_call(outbox, "relay_adopted_marks", "array[upper(o.skipped) - 1]"));
  }
  return fmt::format(
      "select from {} s where s.id = upper(o.skipped) - 1 and s.pgt_id = o.skipped_mark",
      qualified(outbox.table));
}

}  // namespace

Result<FirstPosition> first_position(postgres::Connection& connection, const OutboxInfo& outbox,
                                     const std::string& start, Deadline deadline,
                                     std::stop_token stop) {
  const auto found = connection.query(
      "select change_id, coalesce(mark::text, ''), coalesce(skipped, '{}'), lost_rows "
      "from pgtrickle.relay_first_position($1, $2)",
      {outbox.incarnation, start}, deadline, std::move(stop));
  if (!found) return fail(state::explain_missing_schema(found.error()));
  FirstPosition first;
  first.position = {found->integer(0, 0), 0, std::string(found->text(0, 1))};
  auto skipped = state::SkipSet::parse(found->text(0, 2));
  if (!skipped) return fail(skipped.error());
  first.skipped = std::move(*skipped);
  first.lost_rows = found->integer(0, 3);
  return first;
}

Result<void> commit_position(postgres::Connection& connection, const OutboxInfo& outbox,
                             const state::PositionKey& key, const std::string& token,
                             const Position& position, Deadline deadline, std::stop_token stop) {
  // Outside a transaction block the setting ends with this statement. What was read must be what is
  // there: after a failover that lost it, other rows may have the same ids, and may not be passed.
  const std::string sql = fmt::format(
      "select case when set_config('synchronous_commit', case when $8 then 'on' else 'off' end, "
      "true) is null then null "
      "when $7::uuid is null or {} or $5::bigint <= (select c.purged_below "
      "from pgtrickle_internal.outbox_config c where c.incarnation = $3::uuid) "
      "then pgtrickle.relay_commit_position($1, $2, $3::uuid, $4::uuid, $5, $6, $7) end",
      is_same_row(outbox));
  const bool durable = connection.in_transaction();
  const auto done = connection.query(
      sql,
      {key.group, key.pipeline, outbox.incarnation, token, std::to_string(position.id),
       std::to_string(position.row), mark_param(position), durable ? "t" : "f"},
      deadline, stop);
  if (!done) return fail(done.error());
  if (done->is_null(0, 0)) {
    return fail(ErrorClass::fenced, std::string(kRewound),
                fmt::format("outbox {} no longer holds what was read from it: row {} is gone or "
                            "another one",
                            outbox.table, position.id));
  }
  if (!done->boolean(0, 0)) return fail(state::fenced_by_another(key));
  return {};
}

Result<PositionFacts> look_at_position(postgres::Connection& connection, const OutboxInfo& outbox,
                                       const state::PositionKey& key, const Position& position,
                                       Deadline deadline, std::stop_token stop) {
  const std::string sql = fmt::format(
      "select {}, coalesce(pg_sequence_last_value($1::regclass), 0), c.purged_below, o.lost_rows, "
      "o.skipped_mark is null or o.skipped is null or upper(o.skipped) - 1 <= c.purged_below "
      "or exists ({}) "
      "from pgtrickle_internal.outbox_config c left join pgtrickle.relay_consumer_offsets o "
      "on o.relay_group_id = $2 and o.pipeline_id = $3 and o.incarnation = c.incarnation "
      "where c.incarnation = $4::uuid",
      marked_row(outbox, "$5", "$6"), skipped_row(outbox));
  const auto found = connection.query(sql,
                                      {outbox.sequence, key.group, key.pipeline, outbox.incarnation,
                                       std::to_string(position.id), std::to_string(position.row)},
                                      deadline, stop);
  if (!found) return fail(state::explain_missing_schema(found.error()));
  PositionFacts facts;
  facts.outbox_exists = !found->empty();
  if (!facts.outbox_exists) return facts;
  if (!found->is_null(0, 0)) facts.mark = found->text(0, 0);
  facts.sequence = found->integer(0, 1);
  facts.purged_below = found->integer(0, 2);
  facts.lost_rows = found->integer(0, 3);
  facts.skipped_are_there = found->boolean(0, 4);
  return facts;
}

Result<bool> has_lost_rows(postgres::Connection& connection, const OutboxInfo& outbox,
                           const state::PositionKey& key, Deadline deadline, std::stop_token stop) {
  const auto found = connection.query(
      "select exists (select from pgtrickle.relay_consumer_offsets o where o.relay_group_id = $1 "
      "and o.pipeline_id = $2 and o.incarnation = $3::uuid and o.lost_rows > 0)",
      {key.group, key.pipeline, outbox.incarnation}, deadline, std::move(stop));
  if (!found) return fail(found.error());
  return found->boolean(0, 0);
}

std::optional<Error> judge_position(const Position& position, const PositionFacts& facts,
                                    const OutboxInfo& info, const std::string& pipeline) {
  const std::string& outbox = info.table;
  Error error;
  error.error_class = ErrorClass::misconfigured;
  error.remedy = fmt::format("pgtrickle-relay resume {} --accept-loss", pipeline);
  if (!facts.outbox_exists) {
    error.code = "outbox_missing";
    error.message = fmt::format("outbox {} was dropped, or dropped and made anew", outbox);
    error.remedy = "enable the outbox again, or delete the pipeline";
    return error;
  }
  const bool ahead = position.id > facts.sequence;
  // A row that is not there any more was deleted, by retention or by the application; that says
  // nothing about later ones.
  const bool another = !position.mark.empty() && facts.mark && *facts.mark != position.mark;
  if (ahead || another || !facts.skipped_are_there) {
    error.code = kRewound;
    error.message =
        ahead ? fmt::format("outbox {} was rewound: its newest id is {}, and {} was passed", outbox,
                            facts.sequence, position.id)
        : another ? fmt::format("outbox {} was rewound: row {} is not the one that was passed",
                                outbox, position.id)
                  : fmt::format(
                        "outbox {} was rewound: rows that were there when the pipeline began at "
                        "latest are gone",
                        outbox);
    error.message += " (a failover to a standby that lagged, or a restored backup)";
    error.remedy += ", which delivers everything that the outbox holds";
    return error;
  }
  if (facts.lost_rows > 0 && info.adopted) {
    error.code = "rows_purged";
    error.message = fmt::format(
        "up to {} rows of outbox {} behind {} are gone: its table was truncated before they were "
        "delivered",
        facts.lost_rows, outbox, position.id);
    error.remedy += ", which goes on with the rows that the table has";
    return error;
  }
  if (facts.lost_rows > 0) {
    error.code = "rows_purged";
    error.message =
        position.mark.empty() && position.id < facts.purged_below
            ? fmt::format(
                  "the pipeline is to begin at row {} of outbox {}, and rows up to {} are "
                  "gone: retention deleted them before they were delivered",
                  position.id + 1, outbox, facts.purged_below)
            : fmt::format(
                  "{} rows of outbox {} behind {} are gone: retention deleted them before "
                  "they were delivered",
                  facts.lost_rows, outbox, position.id);
    error.remedy += fmt::format(", which goes on behind {}", facts.purged_below);
    return error;
  }
  return std::nullopt;
}

}  // namespace relay::outbox
