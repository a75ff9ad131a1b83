#pragma once

#include <stop_token>
#include <string>

#include "core/deadline.h"
#include "core/error.h"
#include "core/record.h"
#include "postgres/connection.h"
#include "state/skip_set.h"

namespace relay::state {

/// Whose position it is. A position in an outbox: every row up to `id` is settled, and `row` rows
/// of the claim check that is the next row after it. `mark` is the pgt_id of the row at `id`, or of
/// that claim check where `row` is not 0; empty where none is known.
struct PositionKey {
  std::string group;
  std::string pipeline;
};

struct Ownership {
  std::string token;
  Position position;
  SkipSet skipped;            ///< beyond the position
  bool skipped_seen = false;  ///< every id of it was drawn when the position was made
  bool is_new = false;
};

/// Where a position that is new begins. Of an outbox the server finds out what is skipped.
struct Start {
  postgres::Param at;             ///< "earliest", "latest", "snapshot", or the first id
  postgres::Param skipping = {};  ///< ids beyond it, as an int8multirange
  bool skipping_seen = false;     ///< Ownership::skipped_seen
};

/// Takes ownership of the position in what `incarnation` names; the owner before is fenced.
/// `outbox_name`: how the pipeline names the outbox; null: it is none of this database.
Result<Ownership> claim_position(postgres::Connection& connection, const std::string& incarnation,
                                 const PositionKey& key, const std::string& worker,
                                 const Start& start, const postgres::Param& outbox_name,
                                 Deadline deadline, std::stop_token stop);

/// Sets the position, even back. Ids that it skips stay so where `keep_skipped`. Fenced: another
/// instance owns it.
Result<void> rewind_position(postgres::Connection& connection, const std::string& incarnation,
                             const PositionKey& key, const std::string& token,
                             const Position& position, bool keep_skipped, Deadline deadline,
                             std::stop_token stop);

/// Consumes the operator's consent that what is lost is lost, if it was given; it counts once.
Result<bool> consume_loss_acceptance(postgres::Connection& connection, const std::string& pipeline,
                                     Deadline deadline, std::stop_token stop);

/// Another instance owns the position now.
Error fenced_by_another(const PositionKey& key);

}  // namespace relay::state
