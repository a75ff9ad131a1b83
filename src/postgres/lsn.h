#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace relay::postgres {

/// A place in the write-ahead log. Zero is no place.
struct Lsn {
  std::uint64_t value = 0;

  explicit operator bool() const { return value != 0; }
  friend auto operator<=>(Lsn, Lsn) = default;
};

/// "16/B374D848", as type pg_lsn is written.
std::string to_string(Lsn lsn);
/// Empty if `text` is not written so.
std::optional<Lsn> parse_lsn(std::string_view text);

}  // namespace relay::postgres
