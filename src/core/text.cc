#include "core/text.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace relay {
namespace {

// What a byte needs inside a JSON string: 0 nothing, 'u' a \u00XX, 'x' a look at the whole UTF-8
// sequence, else the letter that follows the backslash.
constexpr std::array<char, 256> kEscapes = [] {
  std::array<char, 256> table{};
  for (std::size_t byte = 0; byte < 0x20; ++byte) table[byte] = 'u';
  for (std::size_t byte = 0x80; byte < 0x100; ++byte) table[byte] = 'x';
  table['"'] = '"';
  table['\\'] = '\\';
  table['\b'] = 'b';
  table['\f'] = 'f';
  table['\n'] = 'n';
  table['\r'] = 'r';
  table['\t'] = 't';
  return table;
}();

constexpr std::uint8_t byte_at(std::string_view text, std::size_t i) {
  return static_cast<std::uint8_t>(text[i]);
}

// Length of the UTF-8 sequence at `i`, or 0 when there is no valid one (over-long forms, surrogates
// and what is beyond U+10FFFF are not valid).
std::size_t utf8_length(std::string_view text, std::size_t i) {
  const std::uint8_t first = byte_at(text, i);
  std::size_t length = 0;
  std::uint8_t low = 0x80;
  std::uint8_t high = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  }
  if (length == 0 || length > text.size() - i) return 0;
  if (byte_at(text, i + 1) < low || byte_at(text, i + 1) > high) return 0;
  for (std::size_t k = 2; k < length; ++k) {
    if ((byte_at(text, i + k) & 0xC0) != 0x80) return 0;
  }
  return length;
}

// The last `width` decimal digits of `value`.
char* write_digits(char* to, unsigned value, int width) {
  for (int i = width - 1; i >= 0; --i) {
    to[i] = static_cast<char>('0' + value % 10);
    value /= 10;
  }
  return to + width;
}

char* write_with(char* to, char separator, unsigned value, int width) {
  *to = separator;
  return write_digits(to + 1, value, width);
}

constexpr char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

constexpr bool same_letter(char a, char b) {
  return lower(a) == lower(b);
}

// Upper and lower case, '-' and '_' do not make a different name: people mix them up.
std::string folded(std::string_view word) {
  std::string result = lower_case(word);
  std::replace(result.begin(), result.end(), '-', '_');
  return result;
}

// Insertions, deletions, substitutions and exchanges of neighbours that lead from `a` to `b`.
std::size_t damerau_levenshtein(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitution = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, substitution});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
    std::swap(before_last, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

}  // namespace

void append_json_string(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out.push_back('"');
  std::size_t clean = 0;  // begin of the bytes that are still to be copied as they are
  for (std::size_t i = 0; i < text.size();) {
    const char escape = kEscapes[byte_at(text, i)];
    if (escape == 0) {
      ++i;
      continue;
    }
    if (escape == 'x') {
      if (const std::size_t length = utf8_length(text, i); length != 0) {
        i += length;
        continue;
      }
    }
    out.append(text.substr(clean, i - clean));
    if (escape == 'x') {
      out.append("\xEF\xBF\xBD");
    } else if (escape == 'u') {
      out.append("\\u00");
      out.push_back(kHex[byte_at(text, i) >> 4]);
      out.push_back(kHex[byte_at(text, i) & 0xF]);
    } else {
      out.push_back('\\');
      out.push_back(escape);
    }
    clean = ++i;
  }
  out.append(text.substr(clean));
  out.push_back('"');
}

std::string json_string(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 2);
  append_json_string(out, text);
  return out;
}

void append_timestamp(std::string& out, Timestamp at) {
  using namespace std::chrono;
  const auto day = floor<days>(at);
  const year_month_day date(day);
  const auto time = static_cast<unsigned>(floor<milliseconds>(at - day).count());
  const int year = static_cast<int>(date.year());
  const auto size = static_cast<unsigned>(year < 0 ? -year : year);
  std::array<char, 32> text;
  char* end = text.data();
  // ISO 8601: a year outside 0000..9999 carries its sign.
  if (year < 0) *end++ = '-';
  if (year > 9999) *end++ = '+';
  end = write_digits(end, size, size > 9999 ? 5 : 4);  // the calendar ends with the year 32767
  end = write_with(end, '-', static_cast<unsigned>(date.month()), 2);
  end = write_with(end, '-', static_cast<unsigned>(date.day()), 2);
  end = write_with(end, 'T', time / 3'600'000, 2);
  end = write_with(end, ':', time / 60'000 % 60, 2);
  end = write_with(end, ':', time / 1'000 % 60, 2);
  end = write_with(end, '.', time % 1'000, 3);
  *end++ = 'Z';
  out.append(text.data(), static_cast<std::size_t>(end - text.data()));
}

std::string format_timestamp(Timestamp at) {
  std::string out;
  append_timestamp(out, at);
  return out;
}

std::string_view trimmed(std::string_view text, std::string_view blanks) {
  const auto first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

std::string lower_case(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), lower);
  return result;
}

std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> all;
  while (!text.empty()) {
    const auto end = std::min(text.find(' '), text.size());
    if (end > 0) all.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return all;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same_letter);
}

bool contains_ignoring_case(std::string_view text, std::string_view part) {
  if (part.empty()) return true;
  return std::search(text.begin(), text.end(), part.begin(), part.end(), same_letter) != text.end();
}

std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates) {
  // One typo in a short word, one in three letters of a long one; more would be a guess.
  const std::size_t limit = std::max<std::size_t>(1, word.size() / 3);
  const std::string wanted = folded(word);
  std::string_view best;
  std::size_t best_distance = limit + 1;
  for (const std::string_view candidate : candidates) {
    const std::size_t distance = damerau_levenshtein(wanted, folded(candidate));
    // A distance as large as the candidate: the words have nothing in common.
    if (distance < best_distance && distance < candidate.size()) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string join_names(std::span<const std::string_view> names) {
  std::string out;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) out.append(i + 1 == names.size() ? " and " : ", ");
    out.append(names[i]);
  }
  return out;
}

std::string shell_word(std::string_view text) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,@%+=";
  const bool plain = !text.empty() && text.find_first_not_of(kPlain) == std::string_view::npos;
  if (plain && text.front() != '-') return std::string(text);
  std::string word = "'";
  for (const char c : text) {
    if (c == '\'') {
      word += "'\\''";
    } else {
      word.push_back(c);
    }
  }
  return word + "'";
}

}  // namespace relay
