#include "backends/kafka/topic.h"

namespace relay::kafka {

namespace {

constexpr std::size_t kLongestTopic = 249;

bool is_legal(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

void append_hex(std::string& out, char c) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  const auto byte = static_cast<unsigned char>(c);
  out.append(".-");
  out.push_back(kDigits[byte >> 4]);
  out.push_back(kDigits[byte & 15]);
}

}  // namespace

std::string_view topic_problem(std::string_view topic) {
  if (topic.empty()) return "it is empty";
  if (topic == "." || topic == "..") return "no topic may have this name";
  if (topic.size() > kLongestTopic) return "it is longer than 249 characters";
  for (const char c : topic) {
    if (!is_legal(c)) return "only letters, digits, '.', '_' and '-' may be in it";
  }
  return {};
}

void escape_topic(std::string& out, std::string_view value) {
  if (value.empty()) {
    out.append(".-");
    return;
  }
  for (std::size_t i = 0; i < value.size(); ++i) {
    const bool looks_escaped = value.substr(i).starts_with(".-");
    if (is_legal(value[i]) && !looks_escaped) {
      out.push_back(value[i]);
    } else {
      append_hex(out, value[i]);
    }
  }
}

}  // namespace relay::kafka
