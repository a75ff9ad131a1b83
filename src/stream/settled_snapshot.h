#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "core/deadline.h"
#include "postgres/lsn.h"

namespace relay::stream {

/// When a snapshot of which all is accounted for is taken, and when it holds: a new slot goes on
/// from the newest one. Pure: no clock, I/O or thread.
class SettledSnapshot {
 public:
  struct Candidate {
    std::string snapshot;
    postgres::Lsn place;  ///< all that the snapshot sees is before it
  };
  /// A candidate is to be taken.
  bool due(SteadyClock::time_point now) const;
  void taken(Candidate candidate, SteadyClock::time_point now);
  /// The candidate, once everything before its place is accounted for.
  const Candidate* holds(postgres::Lsn accounted_to) const;
  /// It was stored, or is of no use any more.
  void drop() { candidate_.reset(); }

 private:
  static constexpr std::chrono::seconds kEvery{1};
  std::optional<Candidate> candidate_;
  SteadyClock::time_point taken_at_{};
};

}  // namespace relay::stream
