#include "backends/redis/entry_id.h"

#include <charconv>

namespace relay::redis {

std::optional<EntryId> parse_entry_id(std::string_view text) {
  EntryId id;
  const char* const end = text.data() + text.size();
  const auto time = std::from_chars(text.data(), end, id.time);
  if (time.ec != std::errc() || time.ptr == end || *time.ptr != '-') return std::nullopt;
  const auto number = std::from_chars(time.ptr + 1, end, id.number);
  if (number.ec != std::errc() || number.ptr != end) return std::nullopt;
  return id;
}

}  // namespace relay::redis
