#include "outbox/starting_position.h"

#include <utility>

#include "core/log.h"
#include "outbox/gone_rows.h"
#include "outbox/outbox_position.h"

namespace relay::outbox {

namespace {

state::PositionKey key_of(const OutboxOptions& options) {
  return {options.group, options.pipeline};
}

/// Whether the operator has accepted that what is lost is lost. It counts once.
Result<bool> consume_loss_acceptance(postgres::Connection& connection, const OutboxOptions& options,
                                     Deadline deadline, std::stop_token stop) {
  if (!options.control) {
    return state::consume_loss_acceptance(connection, options.pipeline, deadline, std::move(stop));
  }
  auto lease = options.control->borrow(deadline, stop);
  if (!lease) return fail(lease.error());
  return state::consume_loss_acceptance(**lease, options.pipeline, deadline, std::move(stop));
}

/// Goes on where the outbox begins now, if the operator has accepted the loss. From a rewound
/// outbox everything that it holds is delivered: which rows of it were delivered before is not
/// known.
Result<Position> accept_loss(postgres::Connection& connection, const OutboxInfo& outbox,
                             const OutboxOptions& options, const state::Ownership& ownership,
                             const PositionFacts& facts, const Error& loss, Deadline deadline,
                             std::stop_token stop) {
  if (!facts.outbox_exists) return fail(loss);
  const auto accepted = consume_loss_acceptance(connection, options, deadline, stop);
  if (!accepted) return fail(accepted.error());
  if (!*accepted) return fail(loss);
  const bool stays = outbox.adopted && loss.code != kRewound;
  Position position{stays ? ownership.position.id : facts.purged_below, 0, {}};
  log::warn("loss_accepted", options.pipeline, "{}; going on behind {}", loss.message, position.id);
  auto set =
      state::rewind_position(connection, outbox.incarnation, key_of(options), ownership.token,
                             position, loss.code != kRewound, deadline, std::move(stop));
  if (!set) return fail(set.error());
  return position;
}

/// Stores with the position of an adopted outbox by what it is known again.
Result<void> note_history(postgres::Connection& connection, const OutboxInfo& outbox,
                          const state::PositionKey& key, const StartingPosition& start,
                          Deadline deadline, std::stop_token stop) {
  if (!outbox.adopted) return {};
  return commit_position(connection, outbox, key, start.ownership.token,
                         {start.read.frontier, 0, {}}, start.read.history, deadline,
                         std::move(stop));
}

}  // namespace

Result<StartingPosition> take_position(postgres::Connection& connection, const OutboxInfo& outbox,
                                       const OutboxOptions& options, Deadline deadline,
                                       std::stop_token stop) {
  const state::PositionKey key = key_of(options);
  auto ownership = state::claim_position(connection, outbox.incarnation, key, options.worker_id,
                                         {options.start}, options.outbox, deadline, stop);
  if (!ownership) return fail(ownership.error());
  if (options.settled) {
    options.settled->begin(outbox.incarnation);
    const auto looked = look_for_gone_rows(connection, *options.settled, deadline, stop);
    if (!looked) return fail(looked.error());
  }
  const ReadSoFar stored{ownership->position, ownership->position.id};
  const auto facts = look_at_position(connection, outbox, key, stored, deadline, stop);
  if (!facts) return fail(facts.error());
  const auto loss = judge_position(ownership->position, *facts, outbox, options.pipeline);
  if (loss && loss->error_class == ErrorClass::transient) return fail(*loss);
  StartingPosition start{
      std::move(*ownership), {facts->last, facts->passed, facts->history}, facts->snapshot};
  if (loss) {
    auto position =
        accept_loss(connection, outbox, options, start.ownership, *facts, *loss, deadline, stop);
    if (!position) return fail(position.error());
    start.ownership.position = start.read.last = *position;
    start.read.frontier = position->id;
    // The ids of a rewound outbox are drawn again.
    if (loss->code == kRewound) start.ownership.skipped.clear();
  } else {
    // What the operator accepted, and was not needed, does not count for a later loss.
    const auto spent = consume_loss_acceptance(connection, options, deadline, stop);
    if (!spent) return fail(spent.error());
    // A row that was deleted long ago is not missed later.
    if (!outbox.adopted && !facts->mark) start.read.last.mark.clear();
  }
  if (loss || facts->stored_history != facts->history) {
    const auto noted = note_history(connection, outbox, key, start, deadline, std::move(stop));
    if (!noted) return fail(noted.error());
  }
  return start;
}

Result<StartingPosition> position_to_watch_from(postgres::Connection& connection,
                                                const OutboxInfo& outbox,
                                                const OutboxOptions& options, Deadline deadline,
                                                std::stop_token stop) {
  auto first = first_position(connection, outbox, options.start, deadline, std::move(stop));
  if (!first) return fail(first.error());
  if (first->lost_rows > 0) {
    first->position.id += first->lost_rows;
    log::warn("rows_purged", options.pipeline, "rows of outbox {} up to {} are gone", outbox.table,
              first->position.id);
  }
  StartingPosition start;
  start.read = {first->position, first->position.id};
  start.ownership.position = std::move(first->position);
  start.ownership.skipped = std::move(first->skipped);
  return start;
}

}  // namespace relay::outbox
