#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "config/fields.h"
#include "core/text.h"

namespace relay::config {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};
constexpr std::array<Unit, 6> kDurations{
    {{"us", 1e-3}, {"ms", 1}, {"s", 1e3}, {"m", 6e4}, {"h", 3.6e6}, {"d", 8.64e7}}};
constexpr std::array<Unit, 9> kSizes{{{"b", 1},
                                      {"kb", 1e3},
                                      {"mb", 1e6},
                                      {"gb", 1e9},
                                      {"tb", 1e12},
                                      {"kib", 1024.0},
                                      {"mib", 1048576.0},
                                      {"gib", 1073741824.0},
                                      {"tib", 1099511627776.0}}};
constexpr double kLargest = 9e18;  // below 2^63
constexpr std::size_t kLongest = 200;

void skip_blanks(std::string_view& text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
}

// Digits with at most one point between them; moves `text` behind them.
std::optional<double> take_number(std::string_view& text) {
  const std::size_t length = std::min(text.find_first_not_of("0123456789."), text.size());
  double number = 0;
  const char* end = text.data() + length;
  const auto [stopped, error] = std::from_chars(text.data(), end, number);
  if (length == 0 || error != std::errc() || stopped != end || end[-1] == '.' ||
      text.front() == '.') {
    return std::nullopt;
  }
  text.remove_prefix(length);
  return number;
}

// The factor of the unit that `text` begins with (1 unit up to the next digit or blank); moves
// `text` behind it.
std::optional<double> take_unit(std::string_view& text, std::span<const Unit> units) {
  const std::size_t length = std::min(text.find_first_of("0123456789. \t"), text.size());
  const std::string name = lower_case(text.substr(0, length));
  text.remove_prefix(length);
  for (const Unit& unit : units) {
    if (unit.name == name) return unit.factor;
  }
  return std::nullopt;
}

// "<number>", counted in `plain`, or "<number><unit>" once or, with `many`, several times.
std::optional<std::int64_t> parse_amount(std::string_view text, std::span<const Unit> units,
                                         double plain, bool many) {
  if (text.size() > kLongest) return std::nullopt;
  double sum = 0;
  skip_blanks(text);
  for (bool first = true; first || !text.empty(); first = false) {
    if (!first && !many) return std::nullopt;
    const auto number = take_number(text);
    skip_blanks(text);
    if (!number) return std::nullopt;
    double factor = plain;
    if (!(first && text.empty())) {
      const auto unit = take_unit(text, units);
      if (!unit) return std::nullopt;
      factor = *unit;
    }
    sum += *number * factor;
    skip_blanks(text);
  }
  if (!(sum <= kLargest)) return std::nullopt;
  // Fractions are rounded up, so that a value above zero does not become zero; 0.1 s is exactly
  // 100 ms all the same.
  const double nearest = std::round(sum);
  return static_cast<std::int64_t>(std::abs(sum - nearest) < 1e-6 + sum * 1e-14 ? nearest
                                                                                : std::ceil(sum));
}

}  // namespace

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
  const auto amount = parse_amount(text, kDurations, 1e3, true);
  if (amount) return std::chrono::milliseconds(*amount);
  return fail(problem("", "wrong_type", "not a duration",
                      "Write it as 500ms, 10s, 5m or 1h, or as a number of seconds."));
}

Result<std::int64_t> parse_bytes(std::string_view text) {
  const auto amount = parse_amount(text, kSizes, 1, false);
  if (amount) return *amount;
  return fail(problem("", "wrong_type", "not a size",
                      "Write it as 256KB, 8MiB or 1GiB, or as a number of bytes."));
}

}  // namespace relay::config
