#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/live_rows.h"
#include "cli/terminal.h"

namespace relay::cli {

/// A table on a terminal whose rows appear, change and go, with rate and latency below. It has the
/// terminal's other screen until it ends; then the last state stays on the usual one. One thread.
class LiveScreen {
 public:
  /// `descriptor` is a terminal that can move its cursor; it stays open as long as this object.
  LiveScreen(int descriptor, std::string title);
  ~LiveScreen();
  LiveScreen(const LiveScreen&) = delete;
  LiveScreen& operator=(const LiveScreen&) = delete;

  void take(std::string_view message);
  /// A line below the table: what the program says meanwhile. All of them follow at the end.
  void note(std::string line);
  /// Shows what there is, in the present size of the window; not more often than can be read.
  void draw();

 private:
  std::vector<std::string> frame(Terminal::Size size) const;
  void write(std::string_view bytes) const;

  const Terminal terminal_;
  const std::string title_;
  LiveRows rows_;
  std::vector<std::string> notes_;
  SteadyClock::time_point drawn_{};
  void (*before_)(int) = nullptr;  ///< what SIGTSTP did
};

}  // namespace relay::cli
