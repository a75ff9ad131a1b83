#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>

#include "core/error.h"
#include "postgres/pgoutput.h"
#include "stream/event_row.h"

namespace relay::stream {

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
  using Places = std::array<std::size_t, kEventColumns.size()>;
  std::unordered_map<std::uint32_t, Places> places_;  // by oid
};

}  // namespace relay::stream
