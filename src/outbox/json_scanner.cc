#include "outbox/json_scanner.h"

#include <cstddef>
#include <cstring>

namespace relay::outbox {

namespace {

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

bool ends_scalar(char c) {
  return c == ',' || c == ']' || c == '}' || is_space(c);
}

}  // namespace

void JsonScanner::skip_space() {
  while (next_ < end_ && is_space(*next_)) ++next_;
}

bool JsonScanner::take(char expected) {
  skip_space();
  if (next_ == end_ || *next_ != expected) return false;
  ++next_;
  return true;
}

bool JsonScanner::at_end() {
  skip_space();
  return next_ == end_;
}

bool JsonScanner::take_separator() {
  if (!left().starts_with(", ")) return false;
  next_ += 2;
  return true;
}

/// From behind the opening quote to behind the closing one.
bool JsonScanner::skip_string() {
  const char* const begin = next_;
  while (true) {
    const auto left = static_cast<std::size_t>(end_ - next_);
    const char* quote = static_cast<const char*>(std::memchr(next_, '"', left));
    if (quote == nullptr) return false;
    next_ = quote + 1;
    // Escaped by an odd number of backslashes.
    const char* before = quote;
    while (before > begin && before[-1] == '\\') --before;
    if ((quote - before) % 2 == 0) return true;
  }
}

/// From the opening bracket to behind the closing one.
bool JsonScanner::skip_structure() {
  std::size_t depth = 0;
  while (next_ < end_) {
    switch (*next_++) {
      case '"':
        if (!skip_string()) return false;
        break;
      case '[':
      case '{':
        ++depth;
        break;
      case ']':
      case '}':
        if (--depth == 0) return true;
        break;
      default:
        break;
    }
  }
  return false;
}

bool JsonScanner::take_string(std::string_view& raw) {
  if (!take('"')) return false;
  const char* const begin = next_;
  if (!skip_string()) return false;
  raw = {begin, static_cast<std::size_t>(next_ - begin - 1)};
  return true;
}

bool JsonScanner::take_value(std::string_view& raw) {
  skip_space();
  const char* const begin = next_;
  if (next_ == end_) return false;
  if (*next_ == '"') {
    ++next_;
    if (!skip_string()) return false;
  } else if (*next_ == '[' || *next_ == '{') {
    if (!skip_structure()) return false;
  } else {
    while (next_ < end_ && !ends_scalar(*next_)) ++next_;
    if (next_ == begin) return false;
  }
  raw = {begin, static_cast<std::size_t>(next_ - begin)};
  return true;
}

}  // namespace relay::outbox
