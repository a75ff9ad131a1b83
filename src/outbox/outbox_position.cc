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
  return fmt::format(
      "(select m.pgt_id from (select o.id, o.pgt_id from {0} o "
      "where o.id >= {1}::bigint + least({2}::bigint, 1) order by o.id limit 1) m "
      "where m.id = {1}::bigint or {2}::bigint > 0)",
      qualified(outbox.table), id, row);
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
      "when $7::uuid is null or $7 = {} or $5::bigint <= (select c.purged_below "
      "from pgtrickle_internal.outbox_config c where c.incarnation = $3::uuid) "
      "then pgtrickle.relay_commit_position($1, $2, $3::uuid, $4::uuid, $5, $6, $7) end",
      marked_row(outbox, "$5", "$6"));
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
      "select coalesce(pg_sequence_last_value($1::regclass), 0), c.purged_below, o.lost_rows, {}, "
      "o.skipped_mark is null or o.skipped is null or upper(o.skipped) - 1 <= c.purged_below "
      "or exists (select from {} s where s.id = upper(o.skipped) - 1 and s.pgt_id = "
      "o.skipped_mark) "
      "from pgtrickle_internal.outbox_config c left join pgtrickle.relay_consumer_offsets o "
      "on o.relay_group_id = $2 and o.pipeline_id = $3 and o.incarnation = c.incarnation "
      "where c.incarnation = $4::uuid",
      marked_row(outbox, "$5", "$6"), qualified(outbox.table));
  const auto found = connection.query(sql,
                                      {outbox.sequence, key.group, key.pipeline, outbox.incarnation,
                                       std::to_string(position.id), std::to_string(position.row)},
                                      deadline, stop);
  if (!found) return fail(state::explain_missing_schema(found.error()));
  PositionFacts facts;
  facts.outbox_exists = !found->empty();
  if (!facts.outbox_exists) return facts;
  facts.sequence = found->integer(0, 0);
  facts.purged_below = found->integer(0, 1);
  facts.lost_rows = found->integer(0, 2);
  if (!found->is_null(0, 3)) facts.mark = found->text(0, 3);
  facts.skipped_are_there = found->boolean(0, 4);
  return facts;
}

std::optional<Error> judge_position(const Position& position, const PositionFacts& facts,
                                    const std::string& outbox, const std::string& pipeline) {
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
