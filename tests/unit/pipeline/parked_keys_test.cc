#include "pipeline/parked_keys.h"

#include <gtest/gtest.h>

#include <vector>

namespace relay {
namespace {

const SharedError kPoison = share({ErrorClass::rejected, "poison", "no", "", {}});

/// One record and one message for each character: its key. Upper case: the encoder refuses it.
MessageBatch batch_of(std::string_view keys) {
  MessageBatch batch;
  for (const char key : keys) {
    Message message;
    message.key = batch.arena.copy(std::string(1, static_cast<char>(key | 0x20)));
    message.record = batch.messages.size();
    if (key < 'a') message.refused = kPoison;
    batch.messages.push_back(message);
  }
  batch.records.records.resize(keys.size());
  return batch;
}

struct Case {
  Case(std::string_view keys, OnReject on_reject, std::set<std::string> parked_before)
      : batch(batch_of(keys)),
        settlement(batch.messages, keys.size(), on_reject == OnReject::stop),
        parked(on_reject) {
    parked.replace(std::move(parked_before));
  }
  explicit Case(std::string_view keys, OnReject on_reject = OnReject::park_key)
      : Case(keys, on_reject, {}) {}

  std::size_t together() const {
    return parked.sent_together(batch, settlement, settlement.pending());
  }
  void set_aside() { first = parked.set_aside(batch, settlement, first); }

  MessageBatch batch;
  Settlement settlement;
  ParkedKeys parked;
  std::size_t first = 0;
};

using Indexes = std::vector<std::size_t>;

TEST(ParkedKeys, SendsEverythingTogetherWhereNoOrderDependsOnRejections) {
  EXPECT_EQ(Case("aabca", OnReject::dead_letter).together(), 5U);
  EXPECT_EQ(Case("aabca", OnReject::skip).together(), 5U);
}

TEST(ParkedKeys, SendsOneMessageAtATimeWhereARejectionStopsThePipeline) {
  EXPECT_EQ(Case("abc", OnReject::stop).together(), 1U);
}

TEST(ParkedKeys, SendsAllBeforeARefusedMessageWhereTheSinkItselfStopsAtAFailure) {
  const Case c("abCd", OnReject::stop);
  const ParkedKeys stopping(OnReject::stop, true);
  EXPECT_EQ(stopping.sent_together(c.batch, c.settlement, c.settlement.pending()), 2u);
  const Case all("aab", OnReject::stop);
  EXPECT_EQ(stopping.sent_together(all.batch, all.settlement, all.settlement.pending()), 3u);
}

TEST(ParkedKeys, SendsAtMostOneMessageOfAKeyTogether) {
  EXPECT_EQ(Case("abcab").together(), 3U);
  EXPECT_EQ(Case("aab").together(), 1U);
}

TEST(ParkedKeys, SendsNothingOfAKeyTogetherWithWhatComesBehindItsRefusedMessage) {
  EXPECT_EQ(Case("abAc").together(), 2U);
}

TEST(ParkedKeys, SetsAsideWhatFollowsAParkedKeyUpToTheFirstThatMayBeSent) {
  Case some("aabac", OnReject::park_key, {"a"});
  some.set_aside();
  EXPECT_EQ(some.settlement.pending(), (Indexes{2, 3, 4}));
  EXPECT_EQ(some.settlement.error(0)->code, "parked");
  EXPECT_EQ(some.together(), 1U) << "the next one of the parked key is not sent";
  some.settlement.record(std::vector{Outcome::delivered()});
  some.set_aside();
  EXPECT_EQ(some.settlement.pending(), Indexes{4});
}

TEST(ParkedKeys, ParksTheKeyOfAMessageThatTheEncoderRefused) {
  Case some("Aab");
  some.set_aside();
  EXPECT_EQ(some.settlement.pending(), Indexes{2});
}

TEST(ParkedKeys, ParksAKeyOnlyOnceWhatComesBeforeItsRefusedMessageIsSettled) {
  Case some("abAca");
  some.set_aside();
  EXPECT_EQ(some.settlement.pending(), (Indexes{0, 1, 3, 4}));
  EXPECT_EQ(some.together(), 2U);
  some.settlement.record(std::vector{Outcome::unknown(nullptr), Outcome::delivered()});
  some.set_aside();
  EXPECT_EQ(some.settlement.pending(), (Indexes{0, 3, 4}));
  some.settlement.record(std::vector{Outcome::delivered()});
  some.set_aside();
  EXPECT_EQ(some.together(), 1U) << "the last one follows the refused one";
  some.settlement.record(std::vector{Outcome::delivered()});
  some.set_aside();
  EXPECT_TRUE(some.settlement.done());
  EXPECT_EQ(some.settlement.error(4)->code, "parked");
}

TEST(ParkedKeys, ParksTheKeyOfAMessageThatTheSinkRejected) {
  Case some("aba");
  const std::vector outcomes{Outcome::rejected(kPoison), Outcome::delivered()};
  some.parked.note(some.batch.messages, outcomes);
  some.settlement.record(outcomes);
  some.set_aside();
  EXPECT_TRUE(some.settlement.done());
  EXPECT_EQ(some.settlement.error(2)->code, "parked");
}

TEST(ParkedKeys, LetsAKeyGoOnWhenItsDeadLettersAreResolved) {
  Case some("ab", OnReject::park_key, {"a"});
  some.parked.replace({});
  some.set_aside();
  EXPECT_EQ(some.together(), 2U);
}

TEST(ParkedKeys, ParksNothingUnlessItIsToldTo) {
  Case some("aba", OnReject::dead_letter, {"a", "b"});
  some.set_aside();
  EXPECT_EQ(some.settlement.pending().size(), 3U);
}

}  // namespace
}  // namespace relay
