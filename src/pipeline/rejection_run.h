#pragma once

#include <chrono>
#include <cstddef>

#include "core/error.h"

namespace relay {

/// Tells a pipeline that rejects everything from one that met a poisonous message: counts the
/// messages that were rejected since the last one that was delivered. No clock, no thread.
class RejectionRun {
 public:
  using TimePoint = std::chrono::system_clock::time_point;

  struct Report {
    std::size_t messages = 0;  ///< 0: the last message was delivered
    TimePoint first{};
    TimePoint last{};
    SharedError error;  ///< of the last one
  };

  /// What became of a batch. One that delivered a message ends the run, whatever else it rejected.
  void note(std::size_t delivered, std::size_t rejected, const SharedError& last, TimePoint now) {
    if (delivered > 0) report_ = {};
    if (delivered > 0 || rejected == 0) return;
    if (report_.messages == 0) report_.first = now;
    report_.messages += rejected;
    report_.last = now;
    report_.error = last;
  }

  const Report& report() const { return report_; }

 private:
  Report report_;
};

}  // namespace relay
