#include "cli/text_width.h"

#include <fmt/core.h>

#include <clocale>
#include <cwchar>

namespace relay::cli {

namespace {

/// A character of a text: its bytes, and the columns that it takes.
struct Character {
  std::size_t bytes = 1;
  std::size_t columns = 1;
  bool control = false;
};

/// The C library's tables of widths, whatever the locale of the process is.
class Utf8 {
 public:
  Utf8() {
    for (const char* name : {"C.UTF-8", "C.utf8", "en_US.UTF-8"}) {
      if ((locale_ = ::newlocale(LC_CTYPE_MASK, name, nullptr)) != nullptr) break;
    }
  }
  ~Utf8() {
    if (locale_ != nullptr) ::freelocale(locale_);
  }
  Utf8(const Utf8&) = delete;
  Utf8& operator=(const Utf8&) = delete;

  Character first(std::string_view text) const {
    const auto byte = static_cast<unsigned char>(text.front());
    if (byte < 0x80) return {1, 1, byte < 0x20 || byte == 0x7f};
    if (locale_ == nullptr) return {1, (byte & 0xC0) == 0x80 ? 0u : 1u, false};
    const locale_t before = ::uselocale(locale_);
    Character found;
    std::mbstate_t state{};
    wchar_t wide = 0;
    const std::size_t bytes = std::mbrtowc(&wide, text.data(), text.size(), &state);
    if (bytes != static_cast<std::size_t>(-1) && bytes != static_cast<std::size_t>(-2) &&
        bytes != 0) {
      const int columns = ::wcwidth(wide);
      found = {bytes, columns < 0 ? 1u : static_cast<std::size_t>(columns),
               wide >= 0x80 && wide < 0xa0};
    }
    ::uselocale(before);
    return found;
  }

 private:
  locale_t locale_ = nullptr;
};

const Utf8& utf8() {
  static const Utf8 locale;
  return locale;
}

/// The longest beginning that takes at most so many columns.
std::string_view beginning(std::string_view text, std::size_t columns) {
  std::size_t bytes = 0;
  std::size_t used = 0;
  while (bytes < text.size()) {
    const Character next = utf8().first(text.substr(bytes));
    if (used + next.columns > columns) break;
    used += next.columns;
    bytes += next.bytes;
  }
  return text.substr(0, bytes);
}

}  // namespace

std::size_t text_width(std::string_view text) {
  std::size_t columns = 0;
  while (!text.empty()) {
    const Character next = utf8().first(text);
    columns += next.columns;
    text.remove_prefix(next.bytes);
  }
  return columns;
}

std::string printable(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Character next = utf8().first(text);
    if (!next.control) {
      out += text.substr(0, next.bytes);
    } else if (text.front() == '\n') {
      out += "\\n";
    } else if (text.front() == '\t') {
      out += "\\t";
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[next.bytes - 1]));
    }
    text.remove_prefix(next.bytes);
  }
  return out;
}

std::string cut(std::string_view text, std::size_t columns, std::string_view ellipsis) {
  if (text_width(text) <= columns) return std::string(text);
  const std::size_t end = text_width(ellipsis);
  if (columns <= end) return std::string(beginning(text, columns));
  return std::string(beginning(text, columns - end)) + std::string(ellipsis);
}

std::vector<std::string> wrapped(std::string_view text, std::size_t columns) {
  std::vector<std::string> lines;
  while (text_width(text) > columns) {
    std::string_view line = beginning(text, columns);
    if (line.empty()) line = text.substr(0, utf8().first(text).bytes);
    const std::size_t blank = line.rfind(' ');
    const bool near = blank != line.npos && blank * 3 > line.size() * 2;
    if (near) line = line.substr(0, blank);
    lines.emplace_back(line);
    text.remove_prefix(line.size() + (near ? 1 : 0));
  }
  if (!text.empty() || lines.empty()) lines.emplace_back(text);
  return lines;
}

}  // namespace relay::cli
