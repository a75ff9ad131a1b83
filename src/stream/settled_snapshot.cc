#include "stream/settled_snapshot.h"

#include <utility>

namespace relay::stream {

bool SettledSnapshot::due(SteadyClock::time_point now) const {
  return !candidate_ && now - taken_at_ >= kEvery;
}

void SettledSnapshot::taken(Candidate candidate, SteadyClock::time_point now) {
  candidate_ = std::move(candidate);
  taken_at_ = now;
}

const SettledSnapshot::Candidate* SettledSnapshot::holds(postgres::Lsn accounted_to) const {
  return candidate_ && accounted_to >= candidate_->place ? &*candidate_ : nullptr;
}

}  // namespace relay::stream
