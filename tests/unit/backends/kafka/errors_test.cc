#include "backends/kafka/errors.h"

#include <gtest/gtest.h>
#include <librdkafka/rdkafka.h>

namespace relay::kafka {
namespace {

TEST(KafkaErrors, OnlyWhatIsWrongWithTheMessageItselfIsPoison) {
  const auto class_of = [](int code) { return delivery_error(code, {}, "t", "b:1").error_class; };
  EXPECT_EQ(class_of(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE), ErrorClass::rejected);
  EXPECT_EQ(class_of(RD_KAFKA_RESP_ERR_INVALID_RECORD), ErrorClass::rejected);
  EXPECT_EQ(class_of(RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC), ErrorClass::misconfigured);
  EXPECT_EQ(class_of(RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED), ErrorClass::misconfigured);
  EXPECT_EQ(class_of(RD_KAFKA_RESP_ERR__MSG_TIMED_OUT), ErrorClass::transient);
  EXPECT_EQ(class_of(RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS), ErrorClass::transient);
  EXPECT_EQ(class_of(-99999), ErrorClass::transient);
}

TEST(KafkaErrors, NameTheTopicTheBrokersAndTheRemedy) {
  const Error error = delivery_error(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, {}, "orders", "b:9092");
  EXPECT_NE(error.message.find("orders"), std::string::npos);
  EXPECT_NE(error.message.find("b:9092"), std::string::npos);
  EXPECT_NE(error.remedy.find("max.message.bytes"), std::string::npos);
}

TEST(KafkaErrors, AnUntrustedCertificateIsAMistakeAndAFailedHandshakeIsNot) {
  EXPECT_EQ(cluster_error(RD_KAFKA_RESP_ERR__SSL, "certificate verify failed: x", "b").code,
            "tls_verification");
  EXPECT_EQ(cluster_error(RD_KAFKA_RESP_ERR__SSL, "connection reset", "b").error_class,
            ErrorClass::transient);
  EXPECT_EQ(cluster_error(RD_KAFKA_RESP_ERR__AUTHENTICATION, "no", "b").error_class,
            ErrorClass::misconfigured);
  EXPECT_EQ(cluster_error(0, {}, "b").error_class, ErrorClass::transient);
}

}  // namespace
}  // namespace relay::kafka
