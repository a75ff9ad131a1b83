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

/// Decides which repetitions of a failure are logged, so that a failure that lasts for hours is
/// reported without filling the log. No clock, no I/O; one thread at a time.
class RepeatedFailures {
 public:
  /// While a failure lasts it is reported once a minute. A failure that did not occur for five
  /// minutes counts as new when it occurs again.
  static constexpr std::chrono::minutes kReminder{1};
  static constexpr std::chrono::minutes kForgotten{5};
  /// How many failures are remembered for one pipeline and event; the oldest is forgotten first.
  static constexpr std::size_t kRemembered = 16;

  enum class Verdict { first, counted, reminder };
  struct Told {
    Verdict verdict = Verdict::first;
    std::uint64_t times = 1;          ///< since `first`, this one included
    std::chrono::seconds lasting{0};  ///< since the first of them
  };
  /// A failure occurred. Two failures with the same `what` count as the same.
  Told failed(std::string_view event, std::string_view pipeline, std::string_view what,
              SteadyClock::time_point now);

  /// The operation succeeded: how often it had failed and for how long; nothing if it had not.
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
