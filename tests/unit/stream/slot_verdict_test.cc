#include "stream/slot_verdict.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace relay::stream {
namespace {

SlotFacts good() {
  SlotFacts facts;
  facts.exists = facts.same_publication = facts.same_timeline = true;
  facts.confirmed = {100};
  facts.recorded = {50};
  return facts;
}

SlotFacts promoted() {
  SlotFacts facts = good();
  facts.same_timeline = false;
  facts.synchronised = true;
  facts.recorded = {200};
  return facts;
}

TEST(SlotVerdict, ASlotContinuesOnItsServerWhereverItIs) {
  EXPECT_EQ(judge(good()), SlotVerdict::continues);
  SlotFacts facts = good();
  facts.recorded = {};
  EXPECT_EQ(judge(facts), SlotVerdict::continues);
}

TEST(SlotVerdict, ASlotThatIsGoneOrInvalidatedDoesNot) {
  SlotFacts facts = good();
  facts.exists = false;
  EXPECT_EQ(judge(facts), SlotVerdict::gone);
  facts = good();
  facts.invalidated = true;
  EXPECT_EQ(judge(facts), SlotVerdict::invalidated);
  facts = promoted();
  facts.invalidated = true;
  EXPECT_EQ(judge(facts), SlotVerdict::invalidated);
}

TEST(SlotVerdict, ASlotOfAnotherPublicationDoesNot) {
  for (SlotFacts facts : {good(), promoted()}) {
    facts.same_publication = false;
    EXPECT_EQ(judge(facts), SlotVerdict::other_publication);
  }
}

TEST(SlotVerdict, ASlotWhoseLogCannotBeDecodedDoesNot) {
  for (SlotFacts facts : {good(), promoted()}) {
    facts.undecodable = true;
    EXPECT_EQ(judge(facts), SlotVerdict::undecodable);
    EXPECT_FALSE(reason_of(judge(facts)).empty());
  }
}

TEST(SlotVerdict, ASynchronisedSlotContinuesOnAPromotedServer) {
  EXPECT_EQ(judge(promoted()), SlotVerdict::continues_promoted);
  SlotFacts facts = promoted();
  facts.confirmed = facts.recorded;
  EXPECT_EQ(judge(facts), SlotVerdict::continues_promoted);
  facts.confirmed = {1};  // far behind
  EXPECT_EQ(judge(facts), SlotVerdict::continues_promoted);
}

TEST(SlotVerdict, ASlotThatIsPastTheRowDoesNotOnAPromotedServer) {
  SlotFacts facts = promoted();
  facts.confirmed = {201};
  EXPECT_EQ(judge(facts), SlotVerdict::ahead);
  facts = promoted();
  facts.recorded = {};  // the row says nothing
  EXPECT_EQ(judge(facts), SlotVerdict::ahead);
  facts.confirmed = {};
  EXPECT_EQ(judge(facts), SlotVerdict::ahead);
}

TEST(SlotVerdict, ASlotOfAnotherHistoryDoesNot) {
  SlotFacts facts = promoted();
  facts.synchronised = false;  // from a copy of the data directory, or an earlier term as primary
  EXPECT_EQ(judge(facts), SlotVerdict::not_synchronised);
  facts = promoted();
  facts.exists = false;
  EXPECT_EQ(judge(facts), SlotVerdict::not_synchronised);
}

TEST(SlotVerdict, ASlotThatWasNotReadyDoesNot) {
  SlotFacts facts = promoted();
  facts.temporary = true;
  EXPECT_EQ(judge(facts), SlotVerdict::not_synchronised);
}

/// Transactions are numbered by the place of their commit. The former primary has accounted for all
/// before `accounted`; its row says so up to `recorded`, and its slot up to `confirmed`.
RC_GTEST_PROP(SlotVerdict, NothingThatIsNotAccountedForIsLeftOut, ()) {
  SlotFacts facts = promoted();
  facts.exists = *rc::gen::arbitrary<bool>();
  facts.invalidated = *rc::gen::arbitrary<bool>();
  facts.temporary = *rc::gen::arbitrary<bool>();
  facts.synchronised = *rc::gen::arbitrary<bool>();
  facts.same_publication = *rc::gen::arbitrary<bool>();
  facts.confirmed = {*rc::gen::inRange<std::uint64_t>(0, 20)};
  facts.recorded = {*rc::gen::inRange<std::uint64_t>(0, 20)};
  const SlotVerdict verdict = judge(facts);
  if (!continues(verdict)) {
    RC_ASSERT(!reason_of(verdict).empty());
    return;
  }
  RC_ASSERT(facts.exists && facts.synchronised && facts.same_publication);
  RC_ASSERT(!facts.invalidated && !facts.temporary);
  for (std::uint64_t commit = 0; commit < 20; ++commit) {
    const bool sent = commit >= facts.confirmed.value;
    const bool known_accounted = commit < facts.recorded.value;
    RC_ASSERT(sent || known_accounted);
  }
}

}  // namespace
}  // namespace relay::stream
