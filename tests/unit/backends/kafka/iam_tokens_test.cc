#include "backends/kafka/iam_tokens.h"

#include <gtest/gtest.h>

#include "core/base64.h"

namespace relay::kafka {
namespace {

using Clock = std::chrono::system_clock;

const aws::Credentials kKeys{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a/b+c="};
const auto kNow = Clock::from_time_t(1440938160);

// What is signed is checked by another implementation in tests/e2e/test_kafka_msk_iam.py.
TEST(IamToken, IsTheSignedRequestAsBase64ForUrls) {
  const auto token = make_iam_token(kKeys, "eu-west-1", kNow, std::nullopt);
  EXPECT_EQ(token.text.find_first_of("+/="), std::string::npos);
  EXPECT_EQ(token.expires, kNow + std::chrono::seconds(900));
  std::string text = token.text;
  for (char& c : text) c = c == '-' ? '+' : c == '_' ? '/' : c;
  const auto url = base64_decoded(text);
  ASSERT_TRUE(url);
  EXPECT_TRUE(
      url->starts_with("https://kafka.eu-west-1.amazonaws.com/?"
                       "Action=kafka-cluster%3AConnect&X-Amz-Algorithm=AWS4-HMAC-SHA256&"
                       "X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Feu-west-1%2F"
                       "kafka-cluster%2Faws4_request&X-Amz-Date=20150830T123600Z&"
                       "X-Amz-Expires=900&X-Amz-Security-Token=a%2Fb%2Bc%3D&"
                       "X-Amz-SignedHeaders=host&X-Amz-Signature="))
      << *url;
}

TEST(IamToken, EndsWithItsKeys) {
  const auto end = kNow + std::chrono::seconds(60);
  EXPECT_EQ(make_iam_token(kKeys, "eu-west-1", kNow, end).expires, end);
}

TEST(IamToken, TheRegionIsThatOfTheBrokersName) {
  EXPECT_EQ(region_of_brokers("b-1.orders.abc123.c2.kafka.eu-west-1.amazonaws.com:9098,b-2"),
            "eu-west-1");
  EXPECT_EQ(region_of_brokers("boot-x.c1.kafka-serverless.us-east-1.amazonaws.com:9098"),
            "us-east-1");
  EXPECT_EQ(region_of_brokers("b-1.orders.c2.kafka.cn-north-1.amazonaws.com.cn:9098"),
            "cn-north-1");
  EXPECT_EQ(region_of_brokers("localhost:9092"), "");
  EXPECT_EQ(region_of_brokers("x.kafka.a,b.amazonaws.com"), "");
}

}  // namespace
}  // namespace relay::kafka
