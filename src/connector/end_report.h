#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/error.h"

namespace relay {

/// What a source or a sink tells of its own work, for health and metrics.
struct EndReport {
  struct Number {
    std::string name;  ///< of the metric, behind the prefix, and of no other
    std::string help;  ///< of the metric
    double value = 0;
  };
  std::string state;             ///< a word: "live"
  std::optional<Error> problem;  ///< why the pipeline is degraded; its code names the cause
  std::vector<Number> numbers;
  std::vector<std::string> latest = {};  ///< ids of the last messages, of a sink that keeps them
  std::string note = {};                 ///< the last event that an operator may ask about
};

}  // namespace relay
