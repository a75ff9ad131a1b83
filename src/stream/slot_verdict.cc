#include "stream/slot_verdict.h"

namespace relay::stream {

SlotVerdict judge(const SlotFacts& facts) {
  if (!facts.exists) {
    return facts.same_timeline ? SlotVerdict::gone : SlotVerdict::not_synchronised;
  }
  if (facts.invalidated) return SlotVerdict::invalidated;
  if (!facts.same_publication) return SlotVerdict::other_publication;
  if (facts.undecodable) return SlotVerdict::undecodable;
  if (facts.same_timeline) return SlotVerdict::continues;
  if (!facts.synchronised || facts.temporary) return SlotVerdict::not_synchronised;
  return facts.confirmed && facts.confirmed <= facts.recorded ? SlotVerdict::continues_promoted
                                                              : SlotVerdict::ahead;
}

std::string_view reason_of(SlotVerdict verdict) {
  switch (verdict) {
    case SlotVerdict::gone:
      return "it is gone";
    case SlotVerdict::invalidated:
      return "it was invalidated";
    case SlotVerdict::other_publication:
      return "the publication was made anew";
    case SlotVerdict::undecodable:
      return "the server could not decode the log from its place";
    case SlotVerdict::not_synchronised:
      return "the server was promoted, and had no synchronised slot";
    case SlotVerdict::ahead:
      return "the server was promoted, and its slot is ahead of what is known here to be settled";
    case SlotVerdict::continues:
    case SlotVerdict::continues_promoted:
      break;
  }
  return "";
}

}  // namespace relay::stream
