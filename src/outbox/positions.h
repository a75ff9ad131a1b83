#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "core/deadline.h"
#include "core/error.h"
#include "core/record.h"
#include "outbox/outbox_info.h"
#include "outbox/skip_set.h"
#include "postgres/connection.h"

namespace relay::outbox {

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
  postgres::Param at;             ///< "earliest", "latest", or the first id
  postgres::Param skipping = {};  ///< ids beyond it, as an int8multirange
  bool skipping_seen = false;     ///< Ownership::skipped_seen
};

/// Takes ownership; who had it before is fenced. `outbox_name`: how the pipeline names the outbox;
/// null: it is none of this database.
Result<Ownership> claim_position(postgres::Connection& connection, const OutboxInfo& outbox,
                                 const PositionKey& key, const std::string& worker,
                                 const Start& start, const postgres::Param& outbox_name,
                                 Deadline deadline, std::stop_token stop);

/// Where a reader begins that owns no position, as `start` says.
struct FirstPosition {
  Position position;
  SkipSet skipped;
  std::int64_t lost_rows = 0;  ///< ids that it asked for and retention has deleted, at most
};
Result<FirstPosition> first_position(postgres::Connection& connection, const OutboxInfo& outbox,
                                     const std::string& start, Deadline deadline,
                                     std::stop_token stop);

/// Moves the position forward; one that is not ahead changes nothing. Durable with the transaction
/// where one is open; alone, it may be lost with a crash of the server, which costs a second
/// delivery at most. Fenced: another instance owns it, or the outbox is not the one that was read
/// (a failover lost what was delivered); nothing was changed.
Result<void> commit_position(postgres::Connection& connection, const OutboxInfo& outbox,
                             const PositionKey& key, const std::string& token,
                             const Position& position, Deadline deadline, std::stop_token stop);

/// Sets the position, even back. Ids that it skips stay so where `keep_skipped`. Fenced: another
/// instance owns it.
Result<void> rewind_position(postgres::Connection& connection, const OutboxInfo& outbox,
                             const PositionKey& key, const std::string& token,
                             const Position& position, bool keep_skipped, Deadline deadline,
                             std::stop_token stop);

/// The code of the error that an outbox no longer holds what was read from it.
inline constexpr std::string_view kRewound = "outbox_rewound";

/// What the database says around a position.
struct PositionFacts {
  bool outbox_exists = true;
  std::int64_t sequence = 0;
  std::int64_t purged_below = 0;    ///< rows up to here were deleted by retention
  std::int64_t lost_rows = 0;       ///< of them, those that this position had not passed
  std::optional<std::string> mark;  ///< pgt_id of the row that `Position::mark` speaks of
  /// The rows that the position skips are those that it was told to skip, as far as they are kept.
  bool skipped_are_there = true;
};

Result<PositionFacts> look_at_position(postgres::Connection& connection, const OutboxInfo& outbox,
                                       const PositionKey& key, const Position& position,
                                       Deadline deadline, std::stop_token stop);

/// Why reading cannot go on from here without somebody knowing; nothing: it can.
std::optional<Error> judge_position(const Position& position, const PositionFacts& facts,
                                    const std::string& outbox, const std::string& pipeline);

/// Takes the operator's word that what is lost is lost, if it was given; it counts once.
Result<bool> take_accepted_loss(postgres::Connection& connection, const std::string& pipeline,
                                Deadline deadline, std::stop_token stop);

}  // namespace relay::outbox
