#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "core/deadline.h"

namespace relay::outbox {

/// How many rows wait beyond those that were handed out. The database counts them, once a second at
/// most, and less often where that takes long. Pure: no I/O, no clock.
class Backlog {
 public:
  using Time = SteadyClock::time_point;

  bool is_due(Time now) const { return now >= count_at_; }
  /// The database counted from `begun` to `ended`. Without an answer, the last count stays valid.
  void counted(std::optional<std::int64_t> rows, Time begun, Time ended);
  void handed_out(std::size_t records);
  std::int64_t rows() const { return rows_; }
  /// It is to be counted at once.
  void make_due() { count_at_ = {}; }

 private:
  std::int64_t rows_ = 0;
  Time count_at_{};
};

}  // namespace relay::outbox
