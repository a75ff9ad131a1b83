#pragma once

#include <stop_token>

#include "core/deadline.h"
#include "core/error.h"
#include "outbox/outbox_info.h"
#include "outbox/outbox_options.h"
#include "outbox/outbox_position.h"
#include "postgres/connection.h"
#include "state/positions.h"

namespace relay::outbox {

/// Where a reader begins.
struct StartingPosition {
  state::Ownership ownership;  ///< without a token where it owns no position
  ReadSoFar read;
  bool snapshot = false;  ///< the rows of the table come first
};

/// The position of the pipeline. Fences its owner before, and makes sure that reading on from there
/// skips no row silently: an error unless the operator has accepted the loss.
Result<StartingPosition> take_position(postgres::Connection& connection, const OutboxInfo& outbox,
                                       const OutboxOptions& options, Deadline deadline,
                                       std::stop_token stop);

/// Where a reader begins that owns no position: as `start` says, among the rows that there are.
Result<StartingPosition> position_to_watch_from(postgres::Connection& connection,
                                                const OutboxInfo& outbox,
                                                const OutboxOptions& options, Deadline deadline,
                                                std::stop_token stop);

}  // namespace relay::outbox
