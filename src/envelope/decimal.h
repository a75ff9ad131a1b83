#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace relay::envelope {

/// A number as JSON or SQL writes it, of any length, never rounded.
class Decimal {
 public:
  /// Reads the number at the beginning of `text`, which must outlive this object.
  explicit Decimal(std::string_view text);

  /// Exact: 1.0 equals 1, and 9007199254740993 is more than 9007199254740992.
  friend std::strong_ordering operator<=>(const Decimal& a, const Decimal& b);
  friend bool operator==(const Decimal& a, const Decimal& b) { return (a <=> b) == 0; }

  /// Appends a text that is the same for equal numbers, and differs for others.
  void append_canonical(std::string& out) const;

 private:
  // Significant digits, first and last of them not 0, perhaps with a point between. Empty: zero.
  std::string_view digits_;
  std::int64_t magnitude_ = 0;  // the value is 0.digits * 10^magnitude
  bool negative_ = false;
};

/// The length of the number at the beginning of `text`, in JSON's syntax but with leading zeros and
/// "+" allowed; 0 if there is none.
std::size_t number_length(std::string_view text);

}  // namespace relay::envelope
