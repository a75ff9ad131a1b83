#include "aws/credentials.h"

#include <gtest/gtest.h>

namespace relay::aws {
namespace {

using Clock = std::chrono::system_clock;

TEST(ParseTime, TakesTimesAsAwsWritesThem) {
  EXPECT_EQ(parse_time("2026-04-27T10:15:03Z"), Clock::from_time_t(1777284903));
  EXPECT_EQ(parse_time("tomorrow"), std::nullopt);
}

TEST(ParseTime, WhatTheClockCannotHoldIsItsFarEnd) {
  EXPECT_GT(parse_time("9999-12-31T23:59:59Z"), parse_time("2261-01-01T00:00:00Z"));
  EXPECT_LT(parse_time("1049-01-01T00:00:00Z"), parse_time("1700-01-01T00:00:00Z"));
}

}  // namespace
}  // namespace relay::aws
