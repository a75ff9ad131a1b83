#include "cli/progress.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "cli/terminal.h"
#include "cli/text_width.h"

namespace relay::cli {

namespace {

constexpr std::chrono::milliseconds kDrawEvery{100};
constexpr std::size_t kWidestBar = 30;

}  // namespace

std::string progress_line(std::string_view what, std::int64_t done, std::int64_t of,
                          std::size_t columns) {
  const double part =
      of > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(of), 0., 1.) : 0;
  const std::string figures = fmt::format("{:3.0f}% {} of {}", part * 100, done, of);
  const std::size_t others = text_width(what) + figures.size() + 5;
  const std::size_t bar = std::min(kWidestBar, columns - std::min(columns, others));
  const auto full = static_cast<std::size_t>(part * static_cast<double>(bar));
  const std::string line = bar < 5 ? fmt::format("{} {}", what, figures)
                                   : fmt::format("{} [{}{}] {}", what, std::string(full, '#'),
                                                 std::string(bar - full, ' '), figures);
  return cut(line, columns - 1, "...");
}

Progress::Progress(std::string what, bool quiet)
    : what_(std::move(what)), shown_(!quiet && Terminal::err().cursor) {}

Progress::~Progress() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
}

void Progress::show(std::int64_t done, std::int64_t of) {
  const auto now = SteadyClock::now();
  if (!shown_ || (drawn_ && now - last_ < kDrawEvery && done < of)) return;
  last_ = now;
  drawn_ = true;
  fmt::print(stderr, "\r\033[K{}", progress_line(what_, done, of, Terminal::err().size().columns));
  std::fflush(stderr);
}

}  // namespace relay::cli
