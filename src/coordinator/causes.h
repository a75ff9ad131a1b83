#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"

namespace relay::coordinator {

/// Why a pipeline, or the instance, is degraded although its threads go on: what, and what to do.
struct Cause {
  Error error;  ///< its code is the name of the cause
  std::chrono::system_clock::time_point since{};
};

/// A cause that was seen at a look.
struct Sighting {
  std::string pipeline;  ///< empty: of the whole instance
  std::string object;    ///< what it is about, where one pipeline may have several: a table
  Error error;
  /// It is a fact, such as a mark in the catalog, and not a matter of a moment.
  bool certain = false;

  /// What the log names.
  const std::string& subject() const { return pipeline.empty() ? object : pipeline; }
};

/// Decides which of the causes that are seen are told. A certain one is told at once, and is over
/// when it is not seen any more. Any other must have been seen at each look for as long as kHold
/// to be told, and is over when it was not seen for as long. No clock, no I/O, no threads.
class Causes {
 public:
  static constexpr std::chrono::seconds kHold{5};

  struct Change {
    Sighting sighting;
    bool began = false;  ///< or what it says has changed; false: it is over
  };
  /// All that is seen now; what is to be said of it.
  std::vector<Change> look(std::vector<Sighting> seen, SteadyClock::time_point now,
                           std::chrono::system_clock::time_point wall);

  /// Those that hold now, of a pipeline or (empty) of the instance.
  std::vector<Cause> of(std::string_view pipeline) const;

 private:
  struct Known {
    Sighting sighting;
    SteadyClock::time_point first;
    SteadyClock::time_point last;
    std::chrono::system_clock::time_point since;
    bool told = false;
  };
  std::vector<Known> known_;
};

}  // namespace relay::coordinator
