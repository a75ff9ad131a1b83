#include "aws/errors.h"

#include <gtest/gtest.h>

namespace relay::aws {
namespace {

TEST(AwsErrors, CodesLoseTheNamesBeforeThem) {
  EXPECT_EQ(plain_code("com.amazonaws.sqs#QueueDoesNotExist"), "QueueDoesNotExist");
  EXPECT_EQ(plain_code("AWS.SimpleQueueService.NonExistentQueue;Sender"), "NonExistentQueue");
}

}  // namespace
}  // namespace relay::aws
