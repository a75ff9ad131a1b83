#include "outbox/outbox_position.h"

#include <fmt/core.h>

#include <utility>
#include <vector>

#include "state/missing_schema.h"

namespace relay::outbox {

namespace {

using postgres::Param;

constexpr std::string_view kWhyRewound =
    " (a failover to a standby that lagged, or a restored backup)";
constexpr std::string_view kDeliversAll = ", which delivers everything that the outbox holds";

Param mark_param(const Position& position) {
  return position.mark.empty() ? Param() : Param(position.mark);
}

Param history_param(const std::string& history) {
  return history.empty() ? Param() : Param(history);
}

/// The row that a mark speaks of: at `id`, or the next one while that is being read.
std::string marked_row(const OutboxInfo& outbox, std::string_view id, std::string_view row) {
  return fmt::format(
      "(select m.pgt_id from (select o.id, o.pgt_id from {0} o "
      "where o.id >= {1}::bigint + least({2}::bigint, 1) order by o.id limit 1) m "
      "where m.id = {1}::bigint or {2}::bigint > 0)",
      qualified(outbox.table), id, row);
}

/// The call that moves a position, with $1 to $7; null where the outbox does not hold what is
/// passed. What was read must be what is there: after a failover that lost it, other rows may have
/// the same ids, and may not be passed. Of an adopted outbox the next look at the position tells
/// that: code of the table's owner, which may be slow, is no part of a commit.
std::string commit_call(const OutboxInfo& outbox) {
  if (outbox.adopted) {
    // There are no claim checks: nothing but a whole row is passed.
    return "when $6::bigint = 0 then "
           "pgtrickle.relay_adopted_commit($1, $2, $3::uuid, $4::uuid, $5, $7::uuid, $9)";
  }
  return fmt::format(
      "when $7::uuid is null or $7 = {} or $5::bigint <= (select c.purged_below "
      "from pgtrickle_internal.outbox_config c where c.incarnation = $3::uuid) "
      "then pgtrickle.relay_commit_position($1, $2, $3::uuid, $4::uuid, $5, $6, $7)",
      marked_row(outbox, "$5", "$6"));
}

/// What judge_position needs of a position in an adopted outbox.
Result<PositionFacts> look_at_adopted(postgres::Connection& connection, const OutboxInfo& outbox,
                                      const state::PositionKey& key, const ReadSoFar& read,
                                      Deadline deadline, std::stop_token stop) {
  const auto found = connection.query(
      "select l.up_to, l.marked, l.mark, l.stored_history, l.history, l.newest, "
      "coalesce(l.rewound, ''), l.lost, l.undecided, l.skipped_are_there "
      "from pgtrickle_internal.outbox_config c cross join lateral "
      "pgtrickle.relay_adopted_look($1, $2, c.incarnation, $4, $5, $6, $7) l "
      "where c.incarnation = $3::uuid",
      {key.group, key.pipeline, outbox.incarnation, std::to_string(read.last.id),
       mark_param(read.last), std::to_string(read.frontier), history_param(read.history)},
      deadline, std::move(stop));
  if (!found) return fail(state::explain_missing_schema(found.error()));
  PositionFacts facts;
  facts.outbox_exists = !found->empty();
  if (!facts.outbox_exists) return facts;
  facts.passed = found->integer(0, 0);
  facts.last = {found->integer(0, 1), 0, std::string(found->text(0, 2))};
  facts.stored_history = found->text(0, 3);
  facts.history = found->text(0, 4);
  facts.sequence = found->integer(0, 5);
  facts.rewound = found->text(0, 6);
  facts.lost_rows = found->integer(0, 7);
  facts.undecided = found->boolean(0, 8);
  facts.skipped_are_there = found->boolean(0, 9);
  return facts;
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
                             const Position& position, const std::string& history,
                             Deadline deadline, std::stop_token stop) {
  // Outside a transaction block the setting ends with this statement.
  const std::string sql = fmt::format(
      "select case when set_config('synchronous_commit', case when $8 then 'on' else 'off' end, "
      "true) is null then null {} end",
      commit_call(outbox));
  const bool durable = connection.in_transaction();
  std::vector<Param> params = {key.group,
                               key.pipeline,
                               outbox.incarnation,
                               token,
                               std::to_string(position.id),
                               std::to_string(position.row),
                               mark_param(position),
                               durable ? "t" : "f"};
  if (outbox.adopted) params.push_back(history_param(history));
  const auto done = connection.query(sql, params, deadline, stop);
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
                                       const state::PositionKey& key, const ReadSoFar& read,
                                       Deadline deadline, std::stop_token stop) {
  if (outbox.adopted) {
    return look_at_adopted(connection, outbox, key, read, deadline, std::move(stop));
  }
  const Position& position = read.last;
  const std::string sql = fmt::format(
      "select {}, coalesce(pg_sequence_last_value($1::regclass), 0), c.purged_below, o.lost_rows, "
      "o.skipped_mark is null or o.skipped is null or upper(o.skipped) - 1 <= c.purged_below "
      "or exists (select from {} s where s.id = upper(o.skipped) - 1 "
      "and s.pgt_id = o.skipped_mark), "
      // A database side of an earlier version has no such column.
      "coalesce(jsonb_typeof(to_jsonb(o) -> 'snapshot') = 'object', false) "
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
  facts.passed = position.id;
  facts.last = position;
  if (!facts.outbox_exists) return facts;
  if (!found->is_null(0, 0)) facts.mark = found->text(0, 0);
  facts.sequence = found->integer(0, 1);
  facts.purged_below = found->integer(0, 2);
  facts.lost_rows = found->integer(0, 3);
  facts.skipped_are_there = found->boolean(0, 4);
  facts.snapshot = found->boolean(0, 5);
  return facts;
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
  if (!facts.rewound.empty()) {
    error.code = kRewound;
    error.message = fmt::format("outbox {} was rewound: {}", outbox, facts.rewound);
    error.message += kWhyRewound;
    error.remedy += kDeliversAll;
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
    error.message += kWhyRewound;
    error.remedy += kDeliversAll;
    return error;
  }
  if (facts.undecided) {
    return Error{ErrorClass::transient,
                 "outbox_changed",
                 fmt::format("the table of outbox {} was written anew: it is looked at again when "
                             "the transactions that write to it have ended",
                             outbox),
                 "",
                 {}};
  }
  if (facts.lost_rows > 0 && info.adopted) {
    error.code = "rows_purged";
    error.message = fmt::format(
        "up to {} rows of outbox {} behind {} are gone: its table was truncated before they were "
        "delivered",
        facts.lost_rows, outbox, facts.passed);
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
