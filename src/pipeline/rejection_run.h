#pragma once

#include <chrono>
#include <cstddef>
#include <utility>

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

  void begin_batch() { batch_ = {}; }
  /// A message was delivered. That ends the run, whatever else its batch rejects.
  void delivered() {
    report_ = {};
    batch_.delivered = true;
  }
  /// `count` messages of the batch were rejected, the last of them with this error.
  void rejected(std::size_t count, SharedError last) {
    batch_.rejected += count;
    batch_.error = std::move(last);
  }
  void end_batch(TimePoint now) {
    if (batch_.delivered || batch_.rejected == 0) return;
    if (report_.messages == 0) report_.first = now;
    report_.messages += batch_.rejected;
    report_.last = now;
    report_.error = std::move(batch_.error);
  }

  const Report& report() const { return report_; }

 private:
  struct Batch {
    bool delivered = false;
    std::size_t rejected = 0;
    SharedError error;
  };
  Report report_;
  Batch batch_;
};

}  // namespace relay
