#include "envelope/decimal.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace relay::envelope {
namespace {

// Larger than the exponent of any number that can be written out: exponents are limited to it.
constexpr std::int64_t kLargestExponent = 1'000'000'000'000;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::size_t skip_digits(std::string_view text, std::size_t i) {
  while (i < text.size() && is_digit(text[i])) ++i;
  return i;
}

std::int64_t read_exponent(std::string_view text) {
  bool negative = false;
  if (text.starts_with('-') || text.starts_with('+')) {
    negative = text.front() == '-';
    text.remove_prefix(1);
  }
  std::int64_t value = 0;
  for (const char c : text) {
    if (value < kLargestExponent) value = value * 10 + (c - '0');
  }
  return negative ? -value : value;
}

// The digits one after the other, the point left out; 0 when they have ended.
char next_digit(std::string_view& digits) {
  while (!digits.empty()) {
    const char c = digits.front();
    digits.remove_prefix(1);
    if (c != '.') return c;
  }
  return 0;
}

}  // namespace

std::size_t number_length(std::string_view text) {
  std::size_t i = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
  const std::size_t first = i;
  i = skip_digits(text, i);
  std::size_t digits = i - first;
  if (i < text.size() && text[i] == '.') {
    const std::size_t after_point = skip_digits(text, i + 1);
    const std::size_t fraction = after_point - (i + 1);
    digits += fraction;
    if (fraction > 0) i = after_point;
  }
  if (digits == 0) return 0;
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    std::size_t k = i + 1;
    if (k < text.size() && (text[k] == '-' || text[k] == '+')) ++k;
    if (const std::size_t end = skip_digits(text, k); end > k) i = end;
  }
  return i;
}

Decimal::Decimal(std::string_view text) {
  text = text.substr(0, number_length(text));
  if (text.starts_with('-') || text.starts_with('+')) {
    negative_ = text.front() == '-';
    text.remove_prefix(1);
  }
  std::int64_t exponent = 0;
  if (const std::size_t e = text.find_first_of("eE"); e != std::string_view::npos) {
    exponent = read_exponent(text.substr(e + 1));
    text = text.substr(0, e);
  }
  const std::size_t point = std::min(text.find('.'), text.size());
  const std::size_t first = text.find_first_not_of("0.");
  if (first == std::string_view::npos) {
    negative_ = false;  // zero has no sign
    return;
  }
  const std::size_t last = text.find_last_not_of("0.");
  digits_ = text.substr(first, last + 1 - first);
  const auto before_point = static_cast<std::int64_t>(point) - static_cast<std::int64_t>(first);
  magnitude_ = exponent + before_point + (first > point ? 1 : 0);
}

std::strong_ordering operator<=>(const Decimal& a, const Decimal& b) {
  if (a.negative_ != b.negative_) {
    return a.negative_ ? std::strong_ordering::less : std::strong_ordering::greater;
  }
  const auto by_size = [&] {
    if (a.digits_.empty() || b.digits_.empty()) return !a.digits_.empty() <=> !b.digits_.empty();
    if (a.magnitude_ != b.magnitude_) return a.magnitude_ <=> b.magnitude_;
    std::string_view left = a.digits_;
    std::string_view right = b.digits_;
    for (;;) {
      // Neither ends in 0, so the longer of two with the same beginning is the larger one.
      const char x = next_digit(left);
      const char y = next_digit(right);
      if (x != y) return x <=> y;
      if (x == 0) return std::strong_ordering::equal;
    }
  };
  const std::strong_ordering order = by_size();
  return a.negative_ ? 0 <=> order : order;
}

void Decimal::append_canonical(std::string& out) const {
  if (negative_) out.push_back('-');
  std::string_view digits = digits_;
  while (const char digit = next_digit(digits)) out.push_back(digit);
  if (!digits_.empty()) fmt::format_to(std::back_inserter(out), "e{}", magnitude_);
}

}  // namespace relay::envelope
