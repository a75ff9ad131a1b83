#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/deadline.h"

namespace relay::log {

/// Decides which repetitions of a failure are worth a line, so that trouble that lasts for hours is
/// told and does not fill the log. No clock, no I/O; not for several threads at once.
class RepeatedFailures {
 public:
  /// One reminder a minute while a failure lasts; one that was silent for longer than five is told
  /// as if it were new.
  static constexpr std::chrono::minutes kReminder{1};
  static constexpr std::chrono::minutes kForgotten{5};
  /// Different failures that are remembered for one pipeline and event; the oldest goes first.
  static constexpr std::size_t kRemembered = 16;

  enum class Verdict { first, counted, reminder };
  struct Told {
    Verdict verdict = Verdict::first;
    std::uint64_t times = 1;          ///< since `first`, this one included
    std::chrono::seconds lasting{0};  ///< since the first of them
  };
  /// One more failure; `what` is all that makes it the same as another.
  Told failed(std::string_view event, std::string_view pipeline, std::string_view what,
              SteadyClock::time_point now);

  /// The trouble is over: how often it was seen and for how long, or nothing if there was none.
  std::optional<Told> recovered(std::string_view event, std::string_view pipeline,
                                SteadyClock::time_point now);

 private:
  struct Failure {
    std::string what;
    SteadyClock::time_point first;
    SteadyClock::time_point last;
    SteadyClock::time_point told;
    std::uint64_t times;
  };
  std::map<std::string, std::vector<Failure>, std::less<>> failures_;
};

}  // namespace relay::log
