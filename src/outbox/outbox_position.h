#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "connector/rewound.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/record.h"
#include "outbox/outbox_info.h"
#include "postgres/connection.h"
#include "state/positions.h"
#include "state/skip_set.h"

namespace relay::outbox {

/// Where a reader begins that owns no position, as `start` says.
struct FirstPosition {
  Position position;
  state::SkipSet skipped;
  std::int64_t lost_rows = 0;  ///< ids that it asked for and retention has deleted, at most
};
Result<FirstPosition> first_position(postgres::Connection& connection, const OutboxInfo& outbox,
                                     const std::string& start, Deadline deadline,
                                     std::stop_token stop);

/// Moves the position forward; one that is not ahead changes nothing. Durable with the transaction
/// where one is open; alone, it may be lost with a crash of the server, which costs a second
/// delivery at most. Fenced: another instance owns it, or the outbox is not the one that was read
/// (a failover lost what was delivered); nothing was changed. `history`: PositionFacts.
Result<void> commit_position(postgres::Connection& connection, const OutboxInfo& outbox,
                             const state::PositionKey& key, const std::string& token,
                             const Position& position, const std::string& history,
                             Deadline deadline, std::stop_token stop);

/// How far a reader has come.
struct ReadSoFar {
  Position last;              ///< the last row that was handed out
  std::int64_t frontier = 0;  ///< every row up to here was handed out or passed
  std::string history = {};   ///< that they were read from (PositionFacts); empty: not known
};

/// What the database says around a position.
struct PositionFacts {
  bool outbox_exists = true;
  std::int64_t sequence = 0;
  std::int64_t purged_below = 0;    ///< rows up to here were deleted by retention
  std::int64_t lost_rows = 0;       ///< of them, those that this position had not passed
  std::optional<std::string> mark;  ///< pgt_id of the row that `Position::mark` speaks of
  /// The rows that the position skips are those that it was told to skip, as far as they are kept.
  bool skipped_are_there = true;
  bool snapshot = false;  ///< the rows of the table are not all delivered (SnapshotReader)

  std::int64_t passed = 0;  ///< every row up to here was handed out or passed
  Position last;            ///< the last row up to there by which the outbox is known again

  // Of an adopted outbox alone.
  /// By which files the table and its sequence are known again: the ones that it has now, and those
  /// that are stored with the position. See outbox_adopted_judge in sql/.
  std::string history;
  std::string stored_history;
  std::string rewound;     ///< why its ids may be those of other rows now
  bool undecided = false;  ///< that is to be asked again when open transactions have ended
};

Result<PositionFacts> look_at_position(postgres::Connection& connection, const OutboxInfo& outbox,
                                       const state::PositionKey& key, const ReadSoFar& read,
                                       Deadline deadline, std::stop_token stop);

/// The error to report where going on from here would skip rows silently; empty where it would not.
/// Transient: it is not known yet.
std::optional<Error> judge_position(const Position& position, const PositionFacts& facts,
                                    const OutboxInfo& outbox, const std::string& pipeline);

}  // namespace relay::outbox
