#include "backends/nats/subject.h"

#include <algorithm>
#include <cstddef>

#include "core/percent.h"
#include "core/text.h"

namespace relay::nats {

namespace {

/// Servers refuse a protocol line of more than 4096 bytes, and end the connection: this leaves room
/// for the rest of the line.
constexpr std::size_t kLongestSubject = 3900;

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

bool needs_escape(char c) {
  return is_control(c) || c == ' ' || c == '.' || c == '*' || c == '>' || c == '%';
}

/// Calls `token(text)` for each token; braces of templates are looked into only for their extent,
/// since `{{ a.b }}` is one token.
template <class Token>
void for_each_token(std::string_view subject, Token&& token) {
  std::size_t start = 0;
  int depth = 0;
  for (std::size_t i = 0; i <= subject.size(); ++i) {
    if (i < subject.size() && subject[i] == '{') ++depth;
    if (i < subject.size() && subject[i] == '}') --depth;
    if (i == subject.size() || (subject[i] == '.' && depth <= 0)) {
      token(subject.substr(start, i - start));
      start = i + 1;
    }
  }
}

}  // namespace

void escape_token(std::string& out, std::string_view value) {
  if (value.empty()) {
    out.push_back('%');
    return;
  }
  for (const char c : value) {
    if (needs_escape(c)) {
      append_percent_escape(out, c);
    } else {
      out.push_back(c);
    }
  }
}

void escape_levels(std::string& out, std::string_view value) {
  std::size_t start = 0;
  bool first = true;
  while (true) {
    const auto dot = value.find('.', start);
    const auto level = value.substr(start, dot == std::string_view::npos ? dot : dot - start);
    if (!first) out.push_back('.');
    escape_token(out, level);
    if (dot == std::string_view::npos) return;
    start = dot + 1;
    first = false;
  }
}

std::string_view subject_problem(std::string_view subject) {
  if (subject.empty()) return "it is empty";
  if (subject.size() > kLongestSubject) return "it is longer than 3900 bytes";
  char previous = '.';
  for (const char c : subject) {
    if (is_control(c) || c == ' ') return "it contains white space or a control character";
    if (c == '.' && previous == '.') return "it has an empty token";
    previous = c;
  }
  if (previous == '.') return "it ends in a dot";
  if (subject.find_first_of("*>") != std::string_view::npos && has_wildcard(subject)) {
    return "it contains a wildcard";
  }
  return {};
}

bool has_wildcard(std::string_view subject) {
  bool found = false;
  for_each_token(subject, [&](std::string_view token) { found |= token == "*" || token == ">"; });
  return found;
}

std::string subject_pattern(std::string_view subject, bool values_have_levels) {
  std::string pattern;
  for_each_token(subject, [&](std::string_view token) {
    if (pattern.ends_with('>')) return;
    if (!pattern.empty()) pattern.push_back('.');
    const bool varies = token.find('{') != std::string_view::npos;
    pattern.append(!varies ? token : values_have_levels ? ">" : "*");
  });
  return pattern;
}

bool is_protocol_header(std::string_view name) {
  constexpr std::string_view kPrefix = "Nats-";
  return equal_ignoring_case(name.substr(0, kPrefix.size()), kPrefix);
}

std::string_view header_problem(std::string_view name, std::string_view value) {
  if (name.empty()) return "it has no name";
  if (std::ranges::any_of(name, [](char c) { return is_control(c) || c == ' ' || c == ':'; })) {
    return "its name contains a space, a colon or a control character";
  }
  if (value.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos) {
    return "its value contains a line break or a NUL byte";
  }
  return {};
}

}  // namespace relay::nats
