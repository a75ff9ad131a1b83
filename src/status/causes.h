#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"

namespace relay::status {

/// Why a pipeline, or the instance, is degraded although its threads run, and what to do.
struct Cause {
  Error error;  ///< its code is the name of the cause
  std::chrono::system_clock::time_point since{};
};

/// A cause as one look found it.
struct Sighting {
  std::string pipeline;  ///< empty: of the whole instance
  std::string object;    ///< the table concerned, where there may be several
  Error error;
  /// It is a lasting fact, such as a mark in the catalog, rather than a momentary state.
  bool certain = false;

  /// What the log names.
  const std::string& subject() const { return pipeline.empty() ? object : pipeline; }
};

/// Decides which of the causes that are seen are reported. A certain one is reported at once, and
/// is over at the first look that does not see it. Any other is reported once every look of kHold
/// has seen it, and is over once no look of kHold has. Pure: no clock, I/O or thread.
class Causes {
 public:
  static constexpr std::chrono::seconds kHold{5};

  struct Change {
    Sighting sighting;
    bool began = false;  ///< or its message has changed; false: it is over
  };
  /// Takes all that is seen now; returns what is to be logged.
  std::vector<Change> look(std::vector<Sighting> seen, SteadyClock::time_point now,
                           std::chrono::system_clock::time_point wall);

  /// The reported causes of a pipeline or (empty) of the instance that still hold.
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

}  // namespace relay::status
