#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "core/error.h"
#include "core/record.h"
#include "postgres/pgoutput.h"
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

/// Reads events from changes that were sent in the binary form of their types. Pure. One thread at
/// a time.
class EventReader {
 public:
  /// A relation was sent. An error: it is a table of events that lacks a column.
  Result<void> learn(const postgres::pgoutput::Relation& relation);
  /// The event that was inserted; none if the change is of another table. Views are valid as long
  /// as those of `inserted`.
  Result<std::optional<EventRow>> read(const postgres::pgoutput::Insert& inserted) const;

 private:
  static constexpr std::size_t kColumns = 6;
  std::unordered_map<std::uint32_t, std::array<std::size_t, kColumns>> places_;  // by oid
};

}  // namespace relay::stream
