#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/deadline.h"
#include "core/record.h"

namespace relay::cli {

/// The rows that messages speak of, as they come, change and go, for a screen. Understands the
/// formats of docs/messages.md; any other message is a row of its own. No I/O; one thread.
class LiveRows {
 public:
  /// Columns by name, in their order.
  using Row = std::vector<std::pair<std::string, std::string>>;
  enum class Fate { present, came, gone };

  /// `most`: rows beyond it are forgotten, the oldest first.
  explicit LiveRows(std::size_t most) : most_(most) {}

  void take(std::string_view message, SteadyClock::time_point now, Timestamp wall);
  /// Lets what came be present, and what is gone disappear, some time after it happened.
  void settle(SteadyClock::time_point now);

  std::vector<std::string> names() const;
  /// The cells of each row under `names`.
  std::vector<std::vector<std::string>> cells(const std::vector<std::string>& names) const;
  Fate fate(std::size_t row) const { return rows_[row].fate; }

  std::size_t messages() const { return messages_; }
  /// Messages a second, over the last seconds.
  double rate(SteadyClock::time_point now) const;
  /// Half of the last messages took no longer from their change to here; below 0: none has a time.
  double median_latency_ms() const;

 private:
  struct Shown {
    Row row;
    Fate fate = Fate::came;
    SteadyClock::time_point since;
  };
  struct Change;

  static bool read(std::string_view message, Change& change);
  std::vector<std::size_t> remove(const Change& change, SteadyClock::time_point now);
  void add(Row row, std::vector<std::size_t>& removed, SteadyClock::time_point now);
  void note_latency(const std::string& time, Timestamp wall);

  std::size_t most_;
  std::vector<Shown> rows_;
  std::size_t messages_ = 0;
  std::deque<SteadyClock::time_point> arrivals_;
  std::deque<double> latencies_;
};

}  // namespace relay::cli
