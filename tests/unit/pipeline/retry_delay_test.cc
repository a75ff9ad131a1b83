#include "pipeline/retry_delay.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Error an_error(ErrorClass error_class, std::string code = "test") {
  return {error_class, std::move(code), "as the test wants it", "", {}};
}

/// The longest of many delays after the same error.
milliseconds longest(const Error& error, Backoff backoff) {
  milliseconds most{0};
  for (int i = 0; i < 200; ++i) most = std::max(most, retry_delay(error, backoff));
  return most;
}

TEST(RetryDelay, GrowsToTheMaximumOfTheBackOff) {
  const auto most = longest(an_error(ErrorClass::transient), {milliseconds(1), seconds(30), 7});
  EXPECT_GT(most, seconds(25));
  EXPECT_LE(most, seconds(30));
}

TEST(RetryDelay, TriesAServerThatCannotBeReachedSoonAgain) {
  const Error error = an_error(ErrorClass::transient, std::string(kUnreachable));
  EXPECT_EQ(longest(error, {milliseconds(1), seconds(30), 7}), kReconnectMax);
}

TEST(RetryDelay, IsAtLeastWhatTheBrokerAskedFor) {
  Error error = an_error(ErrorClass::throttled);
  error.retry_after = seconds(7);
  Backoff backoff(milliseconds(1), milliseconds(5), 7);
  EXPECT_GE(retry_delay(error, backoff), seconds(7));
}

TEST(RetryDelay, LooksAtAMisconfiguredPipelineEveryThirtySeconds) {
  const Error error = an_error(ErrorClass::misconfigured);
  Backoff backoff(milliseconds(1), milliseconds(5), 7);
  EXPECT_EQ(retry_delay(error, backoff), seconds(2));
  EXPECT_EQ(retry_delay(error, backoff), seconds(4));
  EXPECT_EQ(longest(error, backoff), seconds(30));
}

}  // namespace
}  // namespace relay
