#include "cli/live_screen.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "cli/output.h"
#include "cli/text_width.h"
#include "core/text.h"

namespace relay::cli {

namespace {

constexpr std::size_t kMostRows = 500;
constexpr std::size_t kMostNotes = 200;
constexpr std::chrono::milliseconds kDrawEvery{100};
/// Title, head, an empty line, the line of figures, and one for a note.
constexpr std::size_t kOtherLines = 5;

constexpr std::string_view kEnter = "\033[?1049h\033[?25l";
constexpr std::string_view kLeave = "\033[?25h\033[?1049l";
constexpr std::string_view kHome = "\033[H";
constexpr std::string_view kRestOfLine = "\033[K";
constexpr std::string_view kRestOfScreen = "\033[J";

Colour colour_of(LiveRows::Fate fate) {
  if (fate == LiveRows::Fate::came) return Colour::green;
  return fate == LiveRows::Fate::gone ? Colour::red : Colour::none;
}

Timestamp wall_clock() {
  return std::chrono::time_point_cast<Timestamp::duration>(std::chrono::system_clock::now());
}

}  // namespace

LiveScreen::LiveScreen(int descriptor, std::string title)
    : terminal_(Terminal::of(descriptor)), title_(std::move(title)), rows_(kMostRows) {
  // A program that is stopped would leave the terminal as it is now.
  before_ = ::signal(SIGTSTP, SIG_IGN);
  write(kEnter);
}

LiveScreen::~LiveScreen() {
  rows_.settle(SteadyClock::now());
  std::string last(kLeave);
  for (const std::string& line : frame(terminal_.size())) last += line + "\r\n";
  for (const std::string& note : notes_) last += printable(note) + "\r\n";
  write(last);
  ::signal(SIGTSTP, before_);
}

void LiveScreen::take(std::string_view message) {
  rows_.take(message, SteadyClock::now(), wall_clock());
}

void LiveScreen::note(std::string line) {
  if (trimmed(line).empty()) return;
  if (notes_.size() == kMostNotes) notes_.erase(notes_.begin());
  notes_.push_back(std::move(line));
}

void LiveScreen::draw() {
  const auto now = SteadyClock::now();
  if (now - drawn_ < kDrawEvery) return;
  drawn_ = now;
  rows_.settle(now);
  const Terminal::Size size = terminal_.size();
  std::string bytes(kHome);
  std::vector<std::string> lines = frame(size);
  if (!notes_.empty()) {
    lines.push_back(cut(printable(notes_.back()), size.columns, terminal_.ellipsis()));
  }
  for (std::size_t i = 0; i < lines.size(); ++i) {
    bytes += lines[i];
    bytes += kRestOfLine;
    if (i + 1 < lines.size()) bytes += "\r\n";
  }
  write(bytes.append(kRestOfScreen));
}

std::vector<std::string> LiveScreen::frame(Terminal::Size size) const {
  std::vector<std::string> lines{
      terminal_.painted(Colour::bold, cut(title_, size.columns, terminal_.ellipsis()))};
  const std::vector<std::string> names = rows_.names();
  auto cells = rows_.cells(names);
  for (auto& row : cells) {
    for (std::string& cell : row) cell = printable(cell);
  }
  // The newest rows, where there is no room for all.
  const std::size_t room = size.lines - std::min(size.lines - 1, kOtherLines);
  const std::size_t first = cells.size() - std::min(cells.size(), room);
  cells.erase(cells.begin(), cells.begin() + static_cast<std::ptrdiff_t>(first));
  if (!names.empty()) {
    std::vector<std::string> left_out;
    const auto colour = [&](std::size_t row, std::size_t) {
      return colour_of(rows_.fate(first + row));
    };
    for (std::string& line : table_lines(terminal_, names, cells, colour, left_out)) {
      lines.push_back(std::move(line));
    }
  }
  std::string figures =
      fmt::format("{} messages, {:.1f}/s", rows_.messages(), rows_.rate(SteadyClock::now()));
  if (const double latency = rows_.median_latency_ms(); latency >= 0) {
    figures += fmt::format("; from the change to here: half within {:.1f} ms", latency);
  }
  if (first > 0) figures += fmt::format("; {} older rows are not shown", first);
  lines.emplace_back();
  lines.push_back(cut(figures, size.columns, terminal_.ellipsis()));
  return lines;
}

void LiveScreen::write(std::string_view bytes) const {
  while (!bytes.empty()) {
    const ssize_t written = ::write(terminal_.descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // the terminal is gone: a signal ends the program
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace relay::cli
