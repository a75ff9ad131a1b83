#pragma once

#include <libpq-fe.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "core/record.h"
#include "stream/snapshot.h"

namespace relay::stream {

/// A row of `pgstream.events` or `pgstream.events_overflow`.
struct EventRow {
  std::string_view id;        ///< the 16 bytes of a uuid
  std::string_view payload;   ///< JSON
  std::string_view metadata;  ///< JSON; empty: none
  Timestamp created_at{};
  Xid xid = 0;           ///< of the transaction that wrote it
  std::int64_t seq = 0;  ///< the order of the events within it
};

/// The columns of an event, in the order of what `event_of` takes.
inline constexpr std::array<std::string_view, 6> kEventColumns = {
    "id", "payload", "metadata", "created_at", "xid", "seq"};
/// The binary forms of the values; empty: NULL.
using EventValues = std::array<std::optional<std::string_view>, kEventColumns.size()>;

/// Nothing: the values are of other types, or one is NULL that must not be. Views are those of
/// `values`.
std::optional<EventRow> event_of(const EventValues& values);

/// The columns of a table `e`, for a statement whose rows come in binary form.
inline constexpr std::string_view kEventSql =
    "e.id, e.payload, e.metadata, e.created_at, e.xid, e.seq";
/// The event of such a row, whose columns begin with the `first` one. An error: they are of other
/// types. Views are those of `result`.
Result<EventRow> event_of(const PGresult* result, int first);

}  // namespace relay::stream
