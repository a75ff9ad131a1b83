#pragma once

#include <cstdint>
#include <string_view>

#include "postgres/lsn.h"

namespace relay::stream {

/// What a server tells of the replication slot of a stream, and what the stream's row in the same
/// database tells of what was accounted for.
struct SlotFacts {
  bool exists = false;
  bool invalidated = false;       ///< the server no longer keeps the log that it needs
  bool temporary = false;         ///< it would end with the session that has made it
  bool synchronised = false;      ///< it came from the primary, by slot synchronisation
  bool same_publication = false;  ///< as when the slot was made
  bool same_timeline = false;     ///< as when the stream was last read
  bool undecodable = false;       ///< the server has failed again and again to decode its log
  postgres::Lsn confirmed;        ///< nothing that committed before it is sent
  postgres::Lsn recorded;         ///< all that committed before it is accounted for
};

enum class SlotVerdict {
  continues,
  continues_promoted,  ///< the same, on a server that was promoted since
  gone,
  invalidated,
  other_publication,
  undecodable,
  not_synchronised,  ///< promoted, and the slot is of another history, or was not ready
  ahead,             ///< promoted, and the slot may be past events that nothing here accounts for
};

/// Whether the slot sends all that is not accounted for. Pure.
///
/// On a promoted server slot and row have come by different ways: the row with the log, the slot by
/// synchronisation. What the row says is true there. It was written after what it speaks of, so
/// the server has all of the log before `recorded` and has replayed it: up to there both timelines
/// are the same log, and the same transactions stand at the same places. For the same reason it is
/// right to skip what committed before `recorded`, and what the row's snapshot sees: each of these
/// transactions left a record in the log before the row, so their ids are not given out again.
/// - A slot that lags sends transactions again that are accounted for. They are skipped by the row.
/// - A slot that is past `recorded` was confirmed for a later row, which did not reach this server.
///   The events in between may have been delivered; but they may as well have been in the backlog,
///   whose rows are missing here with the later row.
/// - What the former primary has delivered beyond the end of the log here is not known here, and no
///   longer matters: those transactions do not exist in this history, though others have their
///   places in the log and their ids. So nothing that is in memory from the former primary may be
///   used.
/// - A slot that was not synchronised is in a copy of the data directory, or is left from a time
///   when the server was a primary before: its place may be one of another history.
SlotVerdict judge(const SlotFacts& facts);

constexpr bool continues(SlotVerdict verdict) {
  return verdict == SlotVerdict::continues || verdict == SlotVerdict::continues_promoted;
}

/// Why the slot does not continue the stream, for the log: "it is gone".
std::string_view reason_of(SlotVerdict verdict);

}  // namespace relay::stream
