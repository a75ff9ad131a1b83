#include "backends/kafka/options.h"

#include <gtest/gtest.h>

#include <string>

#include "config/checked.h"

namespace relay::kafka {
namespace {

Result<SinkOptions> parsed(std::string_view json) {
  return parse_sink_options(config::checked(json, sink_fields()));
}

std::string code_of(std::string_view json) {
  return config::code_of(parsed(json));
}

std::string property_of(std::string_view json, std::string_view name) {
  const auto result = parsed(json);
  EXPECT_TRUE(result) << json;
  return result ? std::string(property(result->client, name)) : "";
}

TEST(KafkaSinkOptions, HaveTheDocumentedDefaults) {
  const auto options = parsed("{}");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->client.brokers, "localhost:9092");
  EXPECT_TRUE(options->idempotent);
  EXPECT_EQ(options->delivery_timeout, std::chrono::seconds(10));
  EXPECT_EQ(property(options->client, "acks"), "all");
  EXPECT_EQ(property(options->client, "compression.type"), "lz4");
  EXPECT_EQ(property(options->client, "linger.ms"), "5");
  EXPECT_EQ(property(options->client, "security.protocol"), "PLAINTEXT");
}

TEST(KafkaSinkOptions, TheProtocolFollowsFromTheOtherOptions) {
  EXPECT_EQ(property_of(R"({"tls_ca": "ca"})", "security.protocol"), "SSL");
  EXPECT_EQ(property_of(R"({"sasl_username": "u"})", "security.protocol"), "SASL_PLAINTEXT");
  EXPECT_EQ(property_of(R"({"sasl_username": "u", "tls_ca": "ca"})", "security.protocol"),
            "SASL_SSL");
  EXPECT_EQ(property_of(R"({"security_protocol": "sasl_ssl", "sasl_username": "u"})",
                        "security.protocol"),
            "SASL_SSL");
  EXPECT_EQ(property_of(R"({"sasl_username": "u"})", "sasl.mechanisms"), "PLAIN");
  EXPECT_EQ(property_of(R"({"sasl_mechanism": "scram-sha-512"})", "sasl.mechanisms"),
            "SCRAM-SHA-512");
}

TEST(KafkaSinkOptions, AmazonsAccessIsATokenOverTls) {
  constexpr std::string_view kIam = R"({"sasl_mechanism": "aws_msk_iam",
    "brokers": "b-1.x.c2.kafka.eu-west-1.amazonaws.com:9098"})";
  EXPECT_EQ(property_of(kIam, "sasl.mechanisms"), "OAUTHBEARER");
  EXPECT_EQ(property_of(kIam, "security.protocol"), "SASL_SSL");
  EXPECT_EQ(parsed(kIam)->client.iam->region, "eu-west-1");
  EXPECT_FALSE(parsed("{}")->client.iam);
}

TEST(KafkaSinkOptions, ContradictionsAreErrors) {
  EXPECT_EQ(code_of(R"({"sasl_mechanism": "AWS_MSK_IAM", "sasl_password": "x"})"), "contradiction");
  EXPECT_EQ(code_of(R"({"sasl_mechanism": "AWS_MSK_IAM", "security_protocol": "SASL_PLAINTEXT"})"),
            "contradiction");
  EXPECT_EQ(code_of(R"({"region": "eu-west-1"})"), "contradiction");
  EXPECT_EQ(code_of(R"({"topic_partitions": 3})"), "contradiction");
  EXPECT_EQ(code_of(R"({"security_protocol": "PLAINTEXT", "tls_ca": "x"})"), "contradiction");
  EXPECT_EQ(code_of(R"({"security_protocol": "SSL", "sasl_username": "x"})"), "contradiction");
  EXPECT_EQ(code_of(R"({"security_protocol": "https"})"), "bad_security_protocol");
  EXPECT_EQ(code_of(R"({"tls_cert": "x"})"), "half_a_certificate");
  EXPECT_EQ(code_of(R"({"brokers": " , "})"), "no_brokers");
  EXPECT_EQ(code_of(R"({"transactional_id": "x"})"), "no_transactions");
}

TEST(KafkaSinkOptions, VerificationIsOnUnlessTurnedOff) {
  EXPECT_EQ(property_of(R"({"security_protocol": "SSL"})", "enable.ssl.certificate.verification"),
            "true");
  EXPECT_EQ(property_of(R"({"security_protocol": "SSL"})", "ssl.endpoint.identification.algorithm"),
            "https");
  EXPECT_EQ(property_of(R"({"security_protocol": "SSL", "tls_verify": false})",
                        "ssl.endpoint.identification.algorithm"),
            "none");
}

TEST(KafkaSinkOptions, OwnPropertiesGoBeforeTheRelaysAndMayNotBreakItsPromises) {
  EXPECT_EQ(property_of(R"({"rdkafka": {"partitioner": "consistent"}})", "partitioner"),
            "consistent");
  EXPECT_EQ(code_of(R"({"rdkafka": {"message.timeout.ms": 5}})"), "property_taken");
  EXPECT_EQ(code_of(R"({"rdkafka": {"transactional.id": "x"}})"), "property_taken");
  EXPECT_EQ(code_of(R"({"rdkafka": {"bootstrap.servers": "x"}})"), "property_taken");
}

TEST(KafkaSinkOptions, IdempotenceNeedsAllAcknowledgements) {
  EXPECT_TRUE(parsed(R"({"acks": "-1"})")->idempotent);
  EXPECT_FALSE(parsed(R"({"acks": "1"})")->idempotent);
  EXPECT_FALSE(parsed(R"({"rdkafka": {"enable.idempotence": false}})")->idempotent);
}

}  // namespace
}  // namespace relay::kafka
