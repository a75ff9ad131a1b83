#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>

#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"

namespace relay::stream {

/// What the primary tells of the standbys that are to take over a stream's slot; PostgreSQL 17.
/// (Whether a standby has finished to synchronise a slot is known only there.)
struct Standbys {
  std::string slot;
  std::int64_t synchronising = 0;  ///< standbys that synchronise slots
  std::string named;               ///< the setting synchronized_standby_slots
  std::string absent;              ///< of those, the slots that no standby is connected to
  std::string physical;            ///< slots through which standbys are connected
  bool waits = false;              ///< the stream waits for those that are named
};

/// `slot` is the stream's. Any role may ask; it must be that of the walsender.
Result<Standbys> look_at_standbys(postgres::Connection& session, const std::string& slot, Deadline,
                                  std::stop_token);

/// Why the stream does not go on, or would not go on exactly where it was after a failover to a
/// standby. Nothing where no standby is prepared to take the slot over: a new one is made then,
/// and nothing is lost. Pure.
std::optional<Error> problem_of(const Standbys& standbys);

}  // namespace relay::stream
