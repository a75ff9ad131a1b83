#include "pipeline/held_back.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace relay {
namespace {

using std::chrono::milliseconds;
using Indexes = std::vector<std::size_t>;

const SteadyClock::time_point kStart{};

/// One message for each character: its key.
MessageBatch batch_of(std::string_view keys) {
  MessageBatch batch;
  for (const char key : keys) {
    Message message;
    message.key = batch.arena.copy(std::string(1, key));
    batch.messages.push_back(message);
  }
  return batch;
}

Outcome refused() {
  Outcome outcome = Outcome::unknown(share({ErrorClass::transient, "http_500", "no", "", {}}));
  outcome.others_may_go = true;
  return outcome;
}

PipelineSpec spec(bool ordered = true, OnReject on_reject = OnReject::dead_letter) {
  PipelineSpec spec;
  spec.ordered = ordered;
  spec.on_reject = on_reject;
  spec.retry_min = milliseconds(100);
  spec.retry_max = milliseconds(300);
  return spec;
}

const MessageBatch kBatch = batch_of("abacb");
const Indexes kAll = {0, 1, 2, 3, 4};

/// What may be sent right after the first message was refused.
Indexes sendable_with(const PipelineSpec& spec) {
  HeldBack held(spec);
  held.note(Indexes{0}, std::vector{refused()}, kStart);
  return held.sendable(kBatch, kAll, kStart);
}

TEST(HeldBack, LetsOtherKeysGoOn) {
  EXPECT_EQ(sendable_with(spec()), (Indexes{1, 3, 4}));
}

TEST(HeldBack, LetsAllGoOnWhereOrderDoesNotMatter) {
  EXPECT_EQ(sendable_with(spec(false)), (Indexes{1, 2, 3, 4}));
  EXPECT_EQ(sendable_with(spec(false, OnReject::park_key)), (Indexes{1, 3, 4}));
}

TEST(HeldBack, LetsNothingPassWhereARejectionStopsThePipeline) {
  EXPECT_EQ(sendable_with(spec(true, OnReject::stop)), Indexes{});
}

TEST(HeldBack, WaitsLongerAfterEachRefusalUpToTheMost) {
  HeldBack held(spec());
  auto now = kStart;
  for (const auto delay : {100, 200, 300, 300}) {
    held.note(Indexes{0}, std::vector{refused()}, now);
    EXPECT_EQ(held.next_due(now), now + milliseconds(delay));
    now += milliseconds(delay);
    EXPECT_EQ(held.sendable(kBatch, Indexes{0}, now), Indexes{0}) << "it is due";
  }
}

TEST(HeldBack, SendsWhatWasRefusedLeastOftenFirst) {
  HeldBack held(spec());
  held.note(Indexes{0}, std::vector{refused()}, kStart);
  held.note(Indexes{0, 1}, std::vector(2, refused()), kStart);
  const auto now = kStart + milliseconds(300);
  EXPECT_EQ(held.sendable(kBatch, kAll, now), Indexes{3}) << "2 follows 0, and 4 follows 1";
  EXPECT_EQ(held.sendable(kBatch, Indexes{0, 1, 2, 4}, now), (Indexes{1, 4}));
  EXPECT_EQ(held.sendable(kBatch, Indexes{0, 2}, now), (Indexes{0, 2}));
}

TEST(HeldBack, SendsWhatWasRefusedLeastOftenFirstWithoutOrderToo) {
  HeldBack held(spec(false));
  held.note(Indexes{0, 1}, std::vector(2, refused()), kStart);
  EXPECT_EQ(held.sendable(kBatch, kAll, kStart + milliseconds(100)), (Indexes{2, 3, 4}));
  EXPECT_EQ(held.sendable(kBatch, Indexes{0, 1}, kStart + milliseconds(100)), (Indexes{0, 1}));
}

TEST(HeldBack, KeepsTheOrderWhereARejectionStopsThePipeline) {
  HeldBack held(spec(true, OnReject::stop));
  held.note(Indexes{1}, std::vector{refused()}, kStart);
  EXPECT_EQ(held.sendable(kBatch, kAll, kStart), Indexes{0});
  EXPECT_EQ(held.sendable(kBatch, kAll, kStart + milliseconds(100)), Indexes{0});
  EXPECT_EQ(held.sendable(kBatch, Indexes{1, 2, 3, 4}, kStart + milliseconds(100)),
            (Indexes{1, 2, 3, 4}));
}

TEST(HeldBack, SendsTogetherAgainWhatWasRefusedTogether) {
  HeldBack held(spec());
  held.note(kAll, std::vector(5, refused()), kStart);
  EXPECT_EQ(held.sendable(kBatch, kAll, kStart), Indexes{});
  EXPECT_EQ(held.sendable(kBatch, kAll, kStart + milliseconds(100)), kAll);
}

TEST(HeldBack, DoesNotDelayWhatWasNotSent) {
  HeldBack held(spec());
  Outcome follows = Outcome::unknown(nullptr);
  follows.others_may_go = true;
  held.note(Indexes{0, 2}, std::vector{refused(), follows}, kStart);
  held.note(Indexes{0}, std::vector{Outcome::delivered()}, kStart);
  EXPECT_TRUE(held.empty());
}

TEST(HeldBack, ForgetsWhatIsSettledAndKeepsWhatIsUnknown) {
  HeldBack held(spec());
  held.note(Indexes{0, 1}, std::vector(2, refused()), kStart);
  held.note(Indexes{0, 1}, std::vector{Outcome::rejected(nullptr), Outcome::unknown(nullptr)},
            kStart);
  EXPECT_FALSE(held.empty());
  held.note(Indexes{1}, std::vector{Outcome::duplicate()}, kStart);
  EXPECT_TRUE(held.empty());
}

}  // namespace
}  // namespace relay
