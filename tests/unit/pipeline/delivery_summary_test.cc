#include "pipeline/delivery_summary.h"

#include <gtest/gtest.h>

#include <vector>

namespace relay {
namespace {

using Next = DeliverySummary::Next;

SharedError an_error(ErrorClass error_class, std::string code) {
  return share({error_class, std::move(code), "as the test wants it", "", {}});
}
const SharedError kAway = an_error(ErrorClass::transient, "away");
const SharedError kPoison = an_error(ErrorClass::rejected, "poison");

DeliverySummary summary(const std::vector<Outcome>& outcomes) {
  return DeliverySummary::of(outcomes);
}

TEST(DeliverySummary, GoesOnWhenEveryMessageIsThere) {
  const auto all = summary({Outcome::delivered(), Outcome::duplicate()});
  EXPECT_EQ(all.settled, 2U);
  EXPECT_EQ(all.failed, 0U);
  EXPECT_EQ(all.next(OnReject::stop), Next::go_on);
  EXPECT_TRUE(all.sink_takes());
}

TEST(DeliverySummary, HaltsAtARejectedMessageOnlyWhereItIsToldToStop) {
  const auto some = summary({Outcome::delivered(), Outcome::rejected(kPoison)});
  EXPECT_EQ(some.failed, 1U);
  EXPECT_EQ(some.next(OnReject::stop), Next::halt);
  for (const auto on_reject : {OnReject::dead_letter, OnReject::park_key, OnReject::skip}) {
    EXPECT_EQ(some.next(on_reject), Next::go_on);
  }
}

TEST(DeliverySummary, RetriesFirstWhereAnOutcomeIsUnknown) {
  const auto some = summary({Outcome::rejected(kPoison), Outcome::unknown(kAway)});
  EXPECT_EQ(some.next(OnReject::stop), Next::retry) << "what is known may change with a retry";
  EXPECT_EQ(some.next(OnReject::dead_letter), Next::retry);
}

TEST(DeliverySummary, TellsTheFirstErrorOfEachKind) {
  const auto some = summary({Outcome::unknown(kAway), Outcome::rejected(kPoison),
                             Outcome::unknown(an_error(ErrorClass::transient, "later")),
                             Outcome::rejected(an_error(ErrorClass::rejected, "later"))});
  EXPECT_EQ(some.unknown, kAway);
  EXPECT_EQ(some.rejected, kPoison);
}

TEST(DeliverySummary, ASinkTakesMessagesWhenItSettledOneOrAnsweredForAll) {
  EXPECT_TRUE(summary({Outcome::rejected(kPoison)}).sink_takes());
  EXPECT_TRUE(summary({Outcome::delivered(), Outcome::unknown(kAway)}).sink_takes());
  EXPECT_FALSE(summary({Outcome::unknown(kAway)}).sink_takes());
  EXPECT_FALSE(summary({Outcome::rejected(kPoison), Outcome::unknown(kAway)}).sink_takes());
}

TEST(DeliverySummary, GoesOnWhereOnlyTheMessageWasRefused) {
  Outcome refused = Outcome::unknown(kAway);
  refused.others_may_go = true;
  Outcome not_sent = Outcome::unknown(nullptr);
  not_sent.others_may_go = true;
  const auto some = summary({refused, not_sent});
  EXPECT_EQ(some.next(OnReject::stop), Next::go_on);
  EXPECT_TRUE(some.sink_takes());
  EXPECT_EQ(some.refused, kAway);
  EXPECT_EQ(some.failed, 1U);
  EXPECT_EQ(summary({refused, Outcome::unknown(kAway)}).next(OnReject::stop), Next::retry);
}

TEST(DeliverySummary, HaltsWhereTheSinkAsksForTheOperator) {
  Outcome gone = Outcome::unknown(kPoison);
  gone.halts = true;
  const auto some = summary({Outcome::unknown(kAway), gone});
  EXPECT_EQ(some.next(OnReject::dead_letter), Next::halt);
  EXPECT_EQ(&some.halt_error(), kPoison.get());
  EXPECT_FALSE(some.sink_takes());
}

TEST(DeliverySummary, KeepsTheConnectionOfABrokerThatAsksForAPause) {
  EXPECT_FALSE(needs_new_connection(*an_error(ErrorClass::throttled, "slow_down")));
  EXPECT_TRUE(needs_new_connection(*kAway));
  EXPECT_TRUE(needs_new_connection(*an_error(ErrorClass::misconfigured, "no_stream")));
}

}  // namespace
}  // namespace relay
