#include "status/causes.h"

#include <algorithm>
#include <utility>

namespace relay::status {

namespace {

bool is_same(const Sighting& a, const Sighting& b) {
  return a.error.code == b.error.code && a.pipeline == b.pipeline && a.object == b.object;
}

}  // namespace

std::vector<Causes::Change> Causes::look(std::vector<Sighting> seen, SteadyClock::time_point now,
                                         std::chrono::system_clock::time_point wall) {
  std::vector<Change> changes;
  for (Sighting& sighting : seen) {
    const auto found = std::find_if(known_.begin(), known_.end(), [&](const Known& known) {
      return is_same(known.sighting, sighting);
    });
    if (found == known_.end()) {
      known_.push_back({std::move(sighting), now, now, wall});
      continue;
    }
    found->last = now;
    // A fact with another message is another fact; the message of a measurement always changes.
    if (sighting.certain && sighting.error.message != found->sighting.error.message) {
      found->told = false;
    }
    found->sighting = std::move(sighting);
  }
  for (Known& known : known_) {
    const bool is_due = known.sighting.certain || now - known.first >= kHold;
    if (known.told || known.last != now || !is_due) continue;
    known.told = true;
    changes.push_back({known.sighting, true});
  }
  std::erase_if(known_, [&](const Known& known) {
    if (known.last == now) return false;
    // One that was never reported has to be seen at each look.
    const bool waits = known.told && !known.sighting.certain && now - known.last < kHold;
    if (known.told && !waits) changes.push_back({known.sighting, false});
    return !waits;
  });
  return changes;
}

std::vector<Cause> Causes::of(std::string_view pipeline) const {
  std::vector<Cause> causes;
  for (const Known& known : known_) {
    if (known.told && known.sighting.pipeline == pipeline) {
      causes.push_back({known.sighting.error, known.since});
    }
  }
  return causes;
}

}  // namespace relay::status
