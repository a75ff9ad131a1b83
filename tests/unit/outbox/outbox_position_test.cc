#include "outbox/outbox_position.h"

#include <gtest/gtest.h>

namespace relay::outbox {
namespace {

const Position kPosition{100, 0, "mark"};

PositionFacts facts(std::optional<std::string> mark = "mark") {
  PositionFacts facts;
  facts.sequence = 120;
  facts.mark = std::move(mark);
  return facts;
}

OutboxInfo outbox(bool adopted = false) {
  OutboxInfo outbox;
  outbox.table = "outbox_orders";
  outbox.adopted = adopted;
  return outbox;
}

std::string verdict(const PositionFacts& facts, const Position& position = kPosition) {
  const auto error = judge_position(position, facts, outbox(), "p");
  if (!error) return "";
  EXPECT_EQ(error->error_class, ErrorClass::misconfigured);
  EXPECT_FALSE(error->remedy.empty());
  return error->code;
}

TEST(JudgePosition, GoesOnWhereTheRowIsWhatItWas) {
  EXPECT_EQ(verdict(facts()), "");
}

TEST(JudgePosition, AnotherRowUnderTheSameIdMeansThatTheOutboxWasRewound) {
  EXPECT_EQ(verdict(facts("another")), "outbox_rewound");
}

TEST(JudgePosition, APositionAheadOfTheSequenceMeansThatTheOutboxWasRewound) {
  PositionFacts behind = facts();
  behind.sequence = 99;
  EXPECT_EQ(verdict(behind), "outbox_rewound");
}

TEST(JudgePosition, ADeletedRowIsNoSignOfARewoundOutbox) {
  EXPECT_EQ(verdict(facts(std::nullopt)), "");
}

TEST(JudgePosition, APositionWithoutAMarkIsTakenAsItIs) {
  EXPECT_EQ(verdict(facts("any"), Position{100, 0, ""}), "");
}

TEST(JudgePosition, RowsThatWereDeletedUnreadAreToldOfWithTheirNumber) {
  PositionFacts purged = facts();
  purged.lost_rows = 17;
  purged.purged_below = 110;
  const auto error = judge_position(kPosition, purged, outbox(), "p");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, "rows_purged");
  EXPECT_NE(error->message.find("17 rows"), std::string::npos);
  EXPECT_NE(error->remedy.find("resume p --accept-loss"), std::string::npos);
}

TEST(JudgePosition, PurgedRowsThatWereReadAreNotLost) {
  PositionFacts purged = facts(std::nullopt);
  purged.purged_below = 110;
  EXPECT_EQ(verdict(purged), "");
}

TEST(JudgePosition, AnOutboxThatIsGoneIsSaidToBeGone) {
  PositionFacts gone;
  gone.outbox_exists = false;
  EXPECT_EQ(verdict(gone), "outbox_missing");
}

TEST(JudgePosition, ATruncatedTableThatWasAdoptedIsToldOf) {
  PositionFacts truncated = facts(std::nullopt);
  truncated.lost_rows = 17;
  const auto error = judge_position(kPosition, truncated, outbox(true), "p");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, "rows_purged");
  EXPECT_NE(error->message.find("truncated"), std::string::npos);
}

TEST(JudgePosition, AnotherHistoryOfAnAdoptedTableIsToldOfWithItsReason) {
  PositionFacts another = facts(std::nullopt);
  another.rewound = "its newest id is 1, and 3 was passed";
  another.lost_rows = 17;
  const auto error = judge_position(kPosition, another, outbox(true), "p");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, "outbox_rewound");
  EXPECT_NE(error->message.find(another.rewound), std::string::npos);
}

TEST(JudgePosition, AnAdoptedTableOfWhichNothingIsKnownYetIsLookedAtAgain) {
  PositionFacts undecided = facts(std::nullopt);
  undecided.lost_rows = 17;
  undecided.undecided = true;
  const auto error = judge_position(kPosition, undecided, outbox(true), "p");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->error_class, ErrorClass::transient);
}

}  // namespace
}  // namespace relay::outbox
