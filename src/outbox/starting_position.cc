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

}  // namespace

Result<state::Ownership> take_position(postgres::Connection& connection, const OutboxInfo& outbox,
                                       const OutboxOptions& options, Deadline deadline,
                                       std::stop_token stop) {
  const state::PositionKey key = key_of(options);
  auto ownership = state::claim_position(connection, outbox.incarnation, key, options.worker_id,
                                         {options.start}, options.outbox, deadline, stop);
  if (!ownership) return ownership;
  if (options.settled) {
    options.settled->begin(outbox.incarnation);
    const auto looked = look_for_gone_rows(connection, *options.settled, deadline, stop);
    if (!looked) return fail(looked.error());
  }
  const auto facts = look_at_position(connection, outbox, key, ownership->position, deadline, stop);
  if (!facts) return fail(facts.error());
  const auto loss = judge_position(ownership->position, *facts, outbox, options.pipeline);
  if (!loss) {
    // What the operator accepted, and was not needed, does not count for a later loss.
    const auto spent = consume_loss_acceptance(connection, options, deadline, std::move(stop));
    if (!spent) return fail(spent.error());
    // A row that was deleted long ago is not missed later.
    if (!facts->mark) ownership->position.mark.clear();
    return ownership;
  }
  auto position = accept_loss(connection, outbox, options, *ownership, *facts, *loss, deadline,
                              std::move(stop));
  if (!position) return fail(position.error());
  ownership->position = std::move(*position);
  // The ids of a rewound outbox are drawn again.
  if (loss->code == kRewound) ownership->skipped.clear();
  return ownership;
}

Result<state::Ownership> position_to_watch_from(postgres::Connection& connection,
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
  state::Ownership ownership;
  ownership.position = std::move(first->position);
  ownership.skipped = std::move(first->skipped);
  return ownership;
}

}  // namespace relay::outbox
