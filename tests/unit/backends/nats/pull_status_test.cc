#include "backends/nats/pull_status.h"

#include <gtest/gtest.h>

namespace relay::nats {
namespace {

TEST(PullStatus, IsWhatTheServerSays) {
  EXPECT_EQ(pull_status_of("100", "Idle Heartbeat"), PullStatus::alive);
  EXPECT_EQ(pull_status_of("404", "No Messages"), PullStatus::ended);
  EXPECT_EQ(pull_status_of("408", "Request Timeout"), PullStatus::ended);
  EXPECT_EQ(pull_status_of("409", "Message Size Exceeds MaxBytes"), PullStatus::too_large);
  EXPECT_EQ(pull_status_of("409", "Consumer Deleted"), PullStatus::failed);
  EXPECT_EQ(pull_status_of("409", "Exceeded MaxWaiting"), PullStatus::failed);
}

TEST(PullStatus, IsNoFailureWhereARequestHasUsedUpItsBytes) {
  EXPECT_EQ(pull_status_of("409", "Batch Completed"), PullStatus::ended);
}

}  // namespace
}  // namespace relay::nats
