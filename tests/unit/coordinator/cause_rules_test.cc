#include "coordinator/cause_rules.h"

#include <gtest/gtest.h>

namespace relay::coordinator {
namespace {

constexpr std::int64_t kMiB = 1 << 20;
constexpr config::SlotLimits kLimits{.active = 100 * kMiB, .idle = 10 * kMiB};

std::string code_of(const ReplicationSlot& slot) {
  const auto cause = cause_of(slot, kLimits);
  return cause ? cause->error.code : "";
}

TEST(SlotCause, ASlotWithoutSubscriberIsReportedAtTheLowerLimit) {
  EXPECT_EQ(code_of({.name = "s", .held = 10 * kMiB - 1}), "");
  EXPECT_EQ(code_of({.name = "s", .held = 10 * kMiB}), "slot_holds_wal");
  EXPECT_EQ(code_of({.name = "s", .active = true, .held = 99 * kMiB}), "");
  EXPECT_EQ(code_of({.name = "s", .active = true, .held = 100 * kMiB}), "slot_holds_wal");
}

TEST(SlotCause, ASlotNearItsEndIsReportedBelowTheLimits) {
  EXPECT_EQ(code_of({.name = "s", .active = true, .held = 5 * kMiB, .safe = 5 * kMiB}), "");
  const auto cause =
      cause_of({.name = "s", .active = true, .held = 5 * kMiB, .safe = 3 * kMiB}, kLimits);
  ASSERT_TRUE(cause);
  EXPECT_NE(cause->error.message.find("lost when at most 4 MiB more"), std::string::npos)
      << cause->error.message;
  EXPECT_EQ(code_of({.name = "s", .held = 5 * kMiB, .safe = -kMiB}), "slot_holds_wal");
}

TEST(SlotCause, ALostSlotIsReportedWithoutAnyWal) {
  EXPECT_EQ(code_of({.name = "s", .lost = true}), "slot_lost");
}

TEST(SlotCause, TheMessageIsTheSameWhileItGrowsALittle) {
  const auto at = [](std::int64_t held) {
    return cause_of({.name = "s", .held = held}, kLimits)->error.message;
  };
  EXPECT_EQ(at(16 * kMiB), at(31 * kMiB));
  EXPECT_NE(at(16 * kMiB), at(32 * kMiB));
}

}  // namespace
}  // namespace relay::coordinator
