#include "cli/terminal.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>

#include "core/text.h"

namespace relay::cli {

namespace {

// Beyond these no window is, and a table would be unreadable.
constexpr std::size_t kNarrowest = 20;
constexpr std::size_t kWidest = 1000;
constexpr std::size_t kFewestLines = 5;
constexpr std::size_t kMostLines = 1000;

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? std::string_view(value) : std::string_view();
}

/// The first of these that is set decides, as for setlocale().
bool has_unicode() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string_view locale = variable(name);
    if (locale.empty()) continue;
    return contains_ignoring_case(locale, "utf-8") || contains_ignoring_case(locale, "utf8");
  }
  return false;
}

/// A number of the environment that makes sense, else 0.
std::size_t number(const char* name) {
  const std::string_view text = variable(name);
  std::size_t value = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  return read.ec == std::errc() && read.ptr == text.data() + text.size() ? value : 0;
}

std::size_t within(std::size_t value, std::size_t least, std::size_t most) {
  return value < least ? least : value > most ? most : value;
}

std::string_view code_of(Colour colour) {
  switch (colour) {
    case Colour::none:
      break;
    case Colour::bold:
      return "\033[1m";
    case Colour::dim:
      return "\033[2m";
    case Colour::red:
      return "\033[31m";
    case Colour::green:
      return "\033[32m";
    case Colour::yellow:
      return "\033[33m";
  }
  return "";
}

}  // namespace

Terminal Terminal::of(int descriptor) {
  Terminal terminal;
  terminal.descriptor = descriptor;
  terminal.is_terminal = ::isatty(descriptor) != 0;
  const std::string_view type = variable("TERM");
  terminal.cursor = terminal.is_terminal && !type.empty() && type != "dumb";
  terminal.colour = terminal.cursor && variable("NO_COLOR").empty();
  terminal.unicode = has_unicode();
  return terminal;
}

const Terminal& Terminal::out() {
  static const Terminal terminal = of(STDOUT_FILENO);
  return terminal;
}

const Terminal& Terminal::err() {
  static const Terminal terminal = of(STDERR_FILENO);
  return terminal;
}

Terminal::Size Terminal::size() const {
  Size size;
  winsize window{};
  const bool known = ::ioctl(descriptor, TIOCGWINSZ, &window) == 0;
  std::size_t columns = known ? window.ws_col : 0;
  std::size_t lines = known ? window.ws_row : 0;
  if (columns == 0) columns = number("COLUMNS");
  if (lines == 0) lines = number("LINES");
  if (columns != 0) size.columns = within(columns, kNarrowest, kWidest);
  if (lines != 0) size.lines = within(lines, kFewestLines, kMostLines);
  return size;
}

std::string Terminal::painted(Colour colour_of_text, std::string_view text) const {
  if (!colour || colour_of_text == Colour::none) return std::string(text);
  return fmt::format("{}{}\033[0m", code_of(colour_of_text), text);
}

}  // namespace relay::cli
