#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "core/deadline.h"

namespace relay {

/// What a sink has in flight during one delivery: whether there is room for more, and whether the
/// broker still answers. Pure: the caller says what time it is.
class InFlightWindow {
 public:
  struct Limits {
    std::size_t messages = 1;
    std::chrono::milliseconds silence{};  ///< longest wait for an answer
    std::size_t bytes = 16u << 20;        ///< a larger message goes alone
  };
  struct Load {
    std::size_t messages = 0;
    std::size_t bytes = 0;
    /// While messages are in flight: the broker owes an answer since then.
    SteadyClock::time_point waiting_since = SteadyClock::time_point::max();
  };

  InFlightWindow(const Limits& limits, Deadline deadline) : limits_(limits), deadline_(deadline) {}

  /// A message was sent. Into an empty window: the wait begins.
  void sent(std::size_t bytes, SteadyClock::time_point now) {
    if (load_.messages++ == 0) load_.waiting_since = now;
    load_.bytes += bytes;
  }
  /// A message was answered, whichever it was: the wait begins anew.
  void answered(std::size_t bytes, SteadyClock::time_point now) {
    --load_.messages;
    load_.bytes -= bytes;
    load_.waiting_since = now;
  }
  /// For a sink whose threads count otherwise: this is in flight now.
  void set(const Load& load) { load_ = load; }

  bool empty() const { return load_.messages == 0; }
  std::size_t messages() const { return load_.messages; }
  bool has_room() const {
    return empty() || (load_.messages < limits_.messages && load_.bytes < limits_.bytes);
  }

  enum class Verdict {
    wait,    ///< answers may still come
    silent,  ///< the broker has not answered for too long
    late,    ///< the deadline of the delivery has passed
  };
  Verdict verdict(SteadyClock::time_point now) const {
    if (now >= silent_at()) return Verdict::silent;
    return now >= deadline_.at() ? Verdict::late : Verdict::wait;
  }
  /// When `verdict` changes if no answer comes.
  Deadline until() const { return Deadline(std::min(silent_at(), deadline_.at())); }

 private:
  SteadyClock::time_point silent_at() const {
    constexpr auto kNever = SteadyClock::time_point::max();
    if (empty() || load_.waiting_since == kNever) return kNever;
    return load_.waiting_since + limits_.silence;
  }

  Limits limits_;
  Deadline deadline_;
  Load load_;
};

}  // namespace relay
