#include "state/positions.h"

#include <fmt/core.h>

#include <utility>

#include "state/missing_schema.h"

namespace relay::state {

namespace {

using postgres::Param;

Param mark_param(const Position& position) {
  return position.mark.empty() ? Param() : Param(position.mark);
}

}  // namespace

Result<Ownership> claim_position(postgres::Connection& connection, const std::string& incarnation,
                                 const PositionKey& key, const std::string& worker,
                                 const Start& start, const postgres::Param& outbox_name,
                                 Deadline deadline, std::stop_token stop) {
  const auto claimed = connection.query(
      "select owner_token, last_change_id, last_row, coalesce(last_pgt_id::text, ''), is_new, "
      "coalesce(skipped, '{}'), skipped_mark is not null "
      "from pgtrickle.relay_claim_position($1, $2, $3, $4, $5, $6, $7, $8)",
      {key.group, key.pipeline, incarnation, worker, start.at, outbox_name, start.skipping,
       start.skipping_seen ? Param(incarnation) : Param()},
      deadline, stop);
  if (!claimed) return fail(explain_missing_schema(claimed.error()));
  if (claimed->empty()) {
    return fail(ErrorClass::misconfigured, "position",
                "relay_claim_position gave no position; the database side may be another version",
                "run `pgtrickle-relay init` against this database");
  }
  Ownership ownership;
  ownership.token = claimed->text(0, 0);
  ownership.position = {claimed->integer(0, 1), claimed->integer(0, 2),
                        std::string(claimed->text(0, 3))};
  ownership.is_new = claimed->boolean(0, 4);
  auto skipped = SkipSet::parse(claimed->text(0, 5));
  if (!skipped) return fail(skipped.error());
  ownership.skipped = std::move(*skipped);
  ownership.skipped_seen = claimed->boolean(0, 6);
  return ownership;
}

Result<void> rewind_position(postgres::Connection& connection, const std::string& incarnation,
                             const PositionKey& key, const std::string& token,
                             const Position& position, bool keep_skipped, Deadline deadline,
                             std::stop_token stop) {
  const auto done = connection.query(
      "select pgtrickle.relay_rewind_position($1, $2, $3, $4, $5, $6, $7, $8)",
      {key.group, key.pipeline, incarnation, token, std::to_string(position.id),
       std::to_string(position.row), mark_param(position), keep_skipped ? "t" : "f"},
      deadline, stop);
  if (!done) return fail(done.error());
  if (!done->boolean(0, 0)) return fail(fenced_by_another(key));
  return {};
}

Result<bool> consume_loss_acceptance(postgres::Connection& connection, const std::string& pipeline,
                                     Deadline deadline, std::stop_token stop) {
  const auto taken = connection.query(
      "update pgtrickle.relay_pipeline_control set accept_loss = false "
      "where pipeline = $1 and accept_loss",
      {pipeline}, deadline, stop);
  if (!taken) return fail(taken.error());
  return taken->affected() > 0;
}

Error fenced_by_another(const PositionKey& key) {
  return {ErrorClass::fenced,
          "fenced",
          fmt::format("another instance of group {} owns pipeline {} now", key.group, key.pipeline),
          "",
          {}};
}

}  // namespace relay::state
