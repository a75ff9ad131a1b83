#include "backends/pg_inbox/jsonb_text.h"

#include <simdjson.h>

#include <cstddef>

#include "core/base64.h"
#include "core/text.h"

namespace relay::pg_inbox {

namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Walks through a JSON text by the grammar of RFC 8259. The text is known to be UTF-8.
class Walker {
 public:
  explicit Walker(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  bool document() {
    blanks();
    while (true) {
      if (!value_or_opening()) return false;
      if (opened_) continue;
      // After a value: containers may end here, and another value may follow.
      while (true) {
        blanks();
        if (open_.empty()) return at_ == end_;
        if (take(',')) {
          blanks();
          if (open_.back() == '}' && !name()) return false;
          break;
        }
        if (!take(open_.back())) return false;
        open_.pop_back();
      }
    }
  }

 private:
  bool more() const { return at_ < end_; }

  bool take(char c) {
    if (!more() || *at_ != c) return false;
    ++at_;
    return true;
  }

  void blanks() {
    while (more() && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) ++at_;
  }

  bool word(std::string_view word) {
    if (std::string_view(at_, static_cast<std::size_t>(end_ - at_)).substr(0, word.size()) !=
        word) {
      return false;
    }
    at_ += word.size();
    return true;
  }

  // A value, or the beginning of a container that is not empty, up to its first value (`opened_`).
  bool value_or_opening() {
    opened_ = false;
    if (!more()) return false;
    switch (*at_) {
      case '{':
        return container('}') && (!opened_ || name());
      case '[':
        return container(']');
      case '"':
        return string();
      case 't':
        return word("true");
      case 'f':
        return word("false");
      case 'n':
        return word("null");
      default:
        return number();
    }
  }

  bool container(char closing) {
    ++at_;
    blanks();
    if (take(closing)) return true;
    open_ += closing;
    opened_ = true;
    return true;
  }

  // A member's name and colon, up to its value.
  bool name() {
    if (!more() || *at_ != '"' || !string()) return false;
    blanks();
    if (!take(':')) return false;
    blanks();
    return true;
  }

  bool digits() {
    if (!more() || !is_digit(*at_)) return false;
    while (more() && is_digit(*at_)) ++at_;
    return true;
  }

  bool number() {
    take('-');
    if (!take('0') && !digits()) return false;
    if (take('.') && !digits()) return false;
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      return digits();
    }
    return true;
  }

  bool string() {
    ++at_;
    while (more()) {
      const auto c = static_cast<unsigned char>(*at_++);
      if (c == '"') return true;
      if (c < 0x20) return false;
      if (c == '\\' && !escape()) return false;
    }
    return false;
  }

  bool escape() {
    if (!more()) return false;
    const char c = *at_++;
    if (c != 'u') return std::string_view("\"\\/bfnrt").find(c) != std::string_view::npos;
    const int unit = code_unit();
    if (unit <= 0 || (unit >= 0xDC00 && unit < 0xE000)) return false;  // NUL, half a character
    if (unit < 0xD800 || unit >= 0xE000) return true;
    if (!take('\\') || !take('u')) return false;
    const int low = code_unit();
    return low >= 0xDC00 && low < 0xE000;
  }

  int code_unit() {
    int unit = 0;
    for (int i = 0; i < 4; ++i) {
      const int digit = more() ? hex_value(*at_++) : -1;
      if (digit < 0) return -1;
      unit = unit * 16 + digit;
    }
    return unit;
  }

  const char* at_;
  const char* end_;
  std::string open_;  // what closes each container that is open, outermost first
  bool opened_ = false;
};

constexpr std::string_view kUnknownType = "application/octet-stream";

/// JSON with \u0000, which jsonb refuses, is JSON all the same.
bool is_json(std::string_view text) {
  simdjson::dom::parser parser;
  return parser.parse(text.data(), text.size()).error() == simdjson::SUCCESS;
}

}  // namespace

bool jsonb_takes(std::string_view text) {
  return simdjson::validate_utf8(text.data(), text.size()) && Walker(text).document();
}

std::string raw_payload(std::string_view body, std::string_view content_type) {
  std::string out = R"({"raw_base64":")" + base64(body) + R"(","content_type":)";
  if (content_type.empty()) content_type = is_json(body) ? "application/json" : kUnknownType;
  if (text_takes(content_type)) {
    append_json_string(out, content_type);
  } else {
    append_json_string(out, kUnknownType);
  }
  out += '}';
  return out;
}

bool text_takes(std::string_view bytes) {
  return bytes.find('\0') == std::string_view::npos &&
         simdjson::validate_utf8(bytes.data(), bytes.size());
}

}  // namespace relay::pg_inbox
