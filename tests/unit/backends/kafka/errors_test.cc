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

TEST(KafkaErrors, ScramOfAnOldLibraryIsNamedBesideAWrongPassword) {
  constexpr std::string_view kScram =
      "Authentication failed due to invalid credentials with SASL mechanism SCRAM-SHA-512";
  EXPECT_TRUE(scram_is_outdated(kScram, 0x020002ff));
  EXPECT_TRUE(scram_is_outdated(kScram, 0x020600ff));
  EXPECT_FALSE(scram_is_outdated(kScram, 0x020601ff));
  EXPECT_FALSE(scram_is_outdated(kScram, 0x020800ff));
  EXPECT_FALSE(scram_is_outdated("invalid credentials with SASL mechanism PLAIN", 0x020002ff));
}

TEST(KafkaErrors, AFailedScramLoginTellsTheVersionOfTheLibraryIfThatMatters) {
  const Error error = cluster_error(RD_KAFKA_RESP_ERR__AUTHENTICATION,
                                    "invalid credentials with SASL mechanism SCRAM-SHA-256", "b:1");
  EXPECT_EQ(error.error_class, ErrorClass::misconfigured);
  const bool outdated = scram_is_outdated("SCRAM", rd_kafka_version());
  EXPECT_EQ(error.code, outdated ? "outdated_scram" : "authentication");
  EXPECT_NE(error.remedy.find("sasl_password"), std::string::npos);
  if (outdated) {
    EXPECT_NE(error.message.find(rd_kafka_version_str()), std::string::npos);
    EXPECT_NE(error.remedy.find("librdkafka1 of Debian 13"), std::string::npos);
  }
}

}  // namespace
}  // namespace relay::kafka
