#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string_view>

namespace relay::redis {

/// The id of a stream's entry: when it was added (milliseconds since 1970, mostly), and a number.
struct EntryId {
  std::uint64_t time = 0;
  std::uint64_t number = 0;

  friend auto operator<=>(const EntryId&, const EntryId&) = default;
};

/// "1763700000000-0"; null: it is none.
std::optional<EntryId> parse_entry_id(std::string_view text);

}  // namespace relay::redis
