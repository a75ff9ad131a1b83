#include "pipeline/settlement.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <memory>
#include <set>

namespace relay {
namespace {

SharedError an_error() {
  return std::make_shared<Error>(Error{ErrorClass::rejected, "poison", "no", "", {}});
}

/// Messages of `records` records with 0 to 3 messages each.
std::vector<Message> some_messages(std::size_t records) {
  std::vector<Message> messages;
  for (std::size_t record = 0; record < records; ++record) {
    const auto count = *rc::gen::inRange(0, 4);
    for (int i = 0; i < count; ++i) {
      Message message;
      message.record = record;
      messages.push_back(message);
    }
  }
  return messages;
}

Outcome any_outcome() {
  switch (*rc::gen::inRange(0, 4)) {
    case 0:
      return Outcome::delivered();
    case 1:
      return Outcome::duplicate();
    case 2:
      return Outcome::rejected(an_error());
    default:
      return Outcome::unknown(an_error());
  }
}

RC_GTEST_PROP(Settlement, NeverPassesARecordWithAnUnsettledMessage, ()) {
  const auto records = static_cast<std::size_t>(*rc::gen::inRange(1, 10));
  const auto messages = some_messages(records);
  Settlement settlement(messages, records);
  std::set<std::size_t> unsettled;
  for (std::size_t i = 0; i < messages.size(); ++i) unsettled.insert(i);
  std::set<std::size_t> rejected;
  std::set<std::size_t> reported;
  std::size_t passed = 0;
  for (int round = 0; round < 8; ++round) {
    const auto pending = settlement.pending();
    RC_ASSERT(std::vector<std::size_t>(unsettled.begin(), unsettled.end()) == pending);
    std::vector<Outcome> outcomes;
    const auto known =
        static_cast<std::size_t>(*rc::gen::inRange(0, static_cast<int>(pending.size()) + 1));
    for (std::size_t i = 0; i < known; ++i) {
      outcomes.push_back(any_outcome());
      if (outcomes.back().kind != Outcome::Kind::unknown) unsettled.erase(pending[i]);
      if (outcomes.back().kind == Outcome::Kind::rejected) rejected.insert(pending[i]);
    }
    settlement.record(outcomes);
    const auto progress = settlement.progress();
    RC_ASSERT(progress.records >= passed);
    passed = progress.records;
    for (const std::size_t index : unsettled) RC_ASSERT(messages[index].record >= passed);
    for (const std::size_t index : progress.rejected) {
      RC_ASSERT(reported.insert(index).second);
      RC_ASSERT(rejected.contains(index));
      RC_ASSERT(messages[index].record < passed);
    }
  }
  // Each rejected message that the position passed was reported for the dead letters, none other.
  for (const std::size_t index : rejected) {
    RC_ASSERT(reported.contains(index) == (messages[index].record < passed));
  }
}

TEST(Settlement, PassesRecordsThatGaveNoMessageAtAll) {
  Settlement settlement({}, 5);
  EXPECT_TRUE(settlement.done());
  EXPECT_EQ(settlement.progress().records, 5u);
}

TEST(Settlement, SetsAsideWhatTheEncoderRefusedWithoutSendingIt) {
  std::vector<Message> messages(2);
  messages[0].refused = an_error();
  messages[1].record = 1;
  Settlement settlement(messages, 2);
  EXPECT_EQ(settlement.pending(), std::vector<std::size_t>{1});
  const auto progress = settlement.progress();
  EXPECT_EQ(progress.records, 1u);
  EXPECT_EQ(progress.rejected, std::vector<std::size_t>{0});
}

TEST(Settlement, PassesNothingRejectedWhereThePipelineIsToStop) {
  std::vector<Message> messages(2);
  messages[1].record = 1;
  Settlement settlement(messages, 2, true);
  const std::vector<Outcome> outcomes = {Outcome::rejected(an_error()), Outcome::delivered()};
  settlement.record(outcomes);
  EXPECT_EQ(settlement.pending(), std::vector<std::size_t>{0});
  EXPECT_EQ(settlement.progress().records, 0u);
  EXPECT_FALSE(settlement.done());
}

TEST(Settlement, TakesTheOutcomesOfAPartOfWhatIsPending) {
  std::vector<Message> messages(4);
  for (std::size_t i = 0; i < messages.size(); ++i) messages[i].record = i;
  Settlement settlement(messages, 4);
  settlement.record(std::vector<std::size_t>{1, 3},
                    std::vector{Outcome::delivered(), Outcome::unknown(an_error())});
  EXPECT_EQ(settlement.pending(), (std::vector<std::size_t>{0, 2, 3}));
  EXPECT_EQ(settlement.progress().records, 0u);
  settlement.record(std::vector<std::size_t>{0}, std::vector{Outcome::rejected(an_error())});
  EXPECT_EQ(settlement.progress().records, 2u);
}

RC_GTEST_PROP(Settlement, ABatchThatGrowsIsSettledAsOneThatWasWhole, ()) {
  const auto all = some_messages(20);
  const auto first = *rc::gen::inRange<std::size_t>(0, 21);
  const auto grown = static_cast<std::size_t>(
      std::ranges::count_if(all, [&](const Message& message) { return message.record < first; }));
  Settlement settlement(std::span<const Message>(all).first(grown), first);
  std::vector<Outcome> outcomes;
  for (std::size_t i = 0; i < grown; ++i) outcomes.push_back(any_outcome());
  settlement.record(outcomes);
  std::size_t rejected = settlement.progress().rejected.size();
  const std::size_t waiting = settlement.pending().size();
  settlement.extend(all, 20);
  RC_ASSERT(settlement.pending().size() == waiting + all.size() - grown);
  RC_ASSERT(std::ranges::is_sorted(settlement.pending()));
  settlement.record(std::vector<Outcome>(settlement.pending().size(), Outcome::delivered()));
  RC_ASSERT(settlement.done());
  const auto progress = settlement.progress();
  RC_ASSERT(progress.records == 20U);
  rejected += progress.rejected.size();
  RC_ASSERT(rejected ==
            static_cast<std::size_t>(std::ranges::count_if(outcomes, [](const Outcome& outcome) {
              return outcome.kind == Outcome::Kind::rejected;
            })));
}

}  // namespace
}  // namespace relay
