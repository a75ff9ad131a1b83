#include "backends/kafka/errors.h"

#include <fmt/core.h>
#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "core/text.h"
#include "core/tls_remedy.h"

namespace relay::kafka {

namespace {

/// What an error code means, and what can be done about it.
struct Known {
  int code;
  ErrorClass error_class;
  std::string_view name;
  std::string_view remedy;
};

constexpr std::array kKnown = {
    Known{RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, ErrorClass::rejected, "too_large",
          "raise the topic's max.message.bytes (and max_message_bytes here), or send less"},
    Known{RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE, ErrorClass::rejected, "too_large",
          "raise the topic's max.message.bytes (and max_message_bytes here), or send less"},
    Known{RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE, ErrorClass::rejected, "too_large",
          "raise the topic's segment.bytes, or send less"},
    Known{RD_KAFKA_RESP_ERR_INVALID_RECORD, ErrorClass::rejected, "invalid_record",
          "a compacted topic takes only records with a key; the broker's log says more"},
    Known{RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, ErrorClass::rejected, "invalid_timestamp",
          "look at the topic's message.timestamp settings and at this machine's clock"},
    Known{RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, ErrorClass::rejected, "illegal_topic",
          "correct the topic template, or the values that it is made of"},
    Known{RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, ErrorClass::misconfigured, "unknown_topic",
          "create the topic, or correct topic"},
    Known{RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, ErrorClass::misconfigured, "unknown_topic",
          "create the topic, or correct topic"},
    Known{RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, ErrorClass::misconfigured, "not_authorised",
          "give the user the rights to write to the topic and to describe it"},
    Known{RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, ErrorClass::misconfigured, "not_authorised",
          "give the user the right to read as this group"},
    Known{RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, ErrorClass::misconfigured,
          "not_authorised",
          "give the user the right IDEMPOTENT_WRITE on the cluster, or set enable.idempotence to "
          "false in rdkafka"},
    Known{RD_KAFKA_RESP_ERR__AUTHENTICATION, ErrorClass::misconfigured, "authentication",
          "correct sasl_username, sasl_password and sasl_mechanism, or the client's certificate"},
    Known{RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED, ErrorClass::misconfigured, "authentication",
          "correct sasl_username, sasl_password and sasl_mechanism"},
    Known{RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM, ErrorClass::misconfigured, "authentication",
          "set sasl_mechanism to one that the brokers offer"},
    Known{RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, ErrorClass::misconfigured, "bad_acks",
          "correct acks"},
    Known{RD_KAFKA_RESP_ERR_POLICY_VIOLATION, ErrorClass::misconfigured, "policy_violation",
          "the cluster's own policy forbids it"},
    Known{RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE, ErrorClass::misconfigured,
          "bad_compression", "correct compression"},
    Known{RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION, ErrorClass::misconfigured, "unsupported",
          "the brokers are too old for what is asked of them"},
    Known{RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE, ErrorClass::misconfigured, "unsupported",
          "the brokers are too old for what is asked of them"},
    Known{RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED, ErrorClass::throttled, "throttled",
          "raise the user's quota"},
    Known{RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, ErrorClass::transient, "not_enough_replicas",
          "bring the topic's replicas back, or lower its min.insync.replicas"},
    Known{RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND, ErrorClass::transient,
          "not_enough_replicas",
          "bring the topic's replicas back, or lower its min.insync.replicas"},
    Known{RD_KAFKA_RESP_ERR__RESOLVE, ErrorClass::transient, "cannot_resolve",
          "check the host names in brokers, and this machine's name resolution"},
};

std::string_view words(int code, std::string_view detail) {
  if (!detail.empty()) return detail;
  return code == 0 ? std::string_view("no answer")
                   : std::string_view(rd_kafka_err2str(static_cast<rd_kafka_resp_err_t>(code)));
}

Error make(ErrorClass error_class, std::string_view code, std::string message,
           std::string_view remedy) {
  return {error_class, std::string(code), std::move(message), std::string(remedy), {}};
}

Error tls_error(std::string_view said, std::string_view brokers) {
  const bool trust = contains_ignoring_case(said, "certificate verify failed") ||
                     contains_ignoring_case(said, "self signed") ||
                     contains_ignoring_case(said, "hostname") ||
                     contains_ignoring_case(said, "could not be verified");
  if (trust) {
    return make(ErrorClass::misconfigured, "tls_verification",
                fmt::format("the certificate of Kafka at {} is not trusted: {}", brokers, said),
                tls_remedy(said, "set tls_ca to the authority that signed it"));
  }
  return make(ErrorClass::transient, "tls_handshake",
              fmt::format("TLS with Kafka at {} failed: {}", brokers, said),
              tls_remedy(said,
                         "if this stays, the brokers may ask for a client certificate (tls_cert, "
                         "tls_key), or not speak TLS on this port"));
}

bool is_login(int code) {
  return code == RD_KAFKA_RESP_ERR__AUTHENTICATION ||
         code == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED;
}

Error outdated_scram(std::string_view said, std::string_view brokers) {
  return make(ErrorClass::misconfigured, "outdated_scram",
              fmt::format("cannot use Kafka at {}: {}. From Kafka 4.0 on, brokers refuse SCRAM of "
                          "librdkafka {}, also with the right password",
                          brokers, said, rd_kafka_version_str()),
              "if the brokers run Kafka 4, run the relay with librdkafka 2.6.1 or newer (package "
              "librdkafka1 of Debian 13), or set sasl_mechanism to PLAIN with SASL_SSL; otherwise "
              "correct sasl_username, sasl_password and sasl_mechanism");
}

}  // namespace

bool scram_is_outdated(std::string_view words, int library) {
  constexpr int kCorrected = 0x02060100;
  return library < kCorrected && contains_ignoring_case(words, "SCRAM");
}

Error delivery_error(int code, std::string_view detail, std::string_view topic,
                     std::string_view brokers) {
  const auto known = std::ranges::find(kKnown, code, &Known::code);
  auto message = fmt::format("Kafka at {} refuses a message for topic '{}': {}", brokers, topic,
                             words(code, detail));
  if (known == kKnown.end()) {
    return make(ErrorClass::transient, "refused", std::move(message),
                "if this stays, look at the cluster");
  }
  return make(known->error_class, known->name, std::move(message), known->remedy);
}

Error creation_error(int code, std::string_view detail, std::string_view topic,
                     std::string_view brokers) {
  constexpr std::string_view kNoRight =
      "give the user the right CREATE on the topic or on the cluster, or create the topic and "
      "leave create_topics out";
  constexpr std::array kOfCreation = {
      Known{RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, ErrorClass::misconfigured,
            "not_authorised", kNoRight},
      Known{RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, ErrorClass::misconfigured,
            "not_authorised", kNoRight},
      Known{RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR, ErrorClass::misconfigured,
            "bad_new_topic", "set topic_replication_factor to at most the number of brokers"},
      Known{RD_KAFKA_RESP_ERR_INVALID_PARTITIONS, ErrorClass::misconfigured, "bad_new_topic",
            "correct topic_partitions"},
      Known{RD_KAFKA_RESP_ERR_INVALID_CONFIG, ErrorClass::misconfigured, "bad_new_topic",
            "correct topic_config"},
      Known{RD_KAFKA_RESP_ERR_INVALID_REQUEST, ErrorClass::misconfigured, "bad_new_topic",
            "correct topic_partitions, topic_replication_factor and topic_config"},
      Known{RD_KAFKA_RESP_ERR__INVALID_ARG, ErrorClass::misconfigured, "bad_new_topic",
            "correct topic_partitions, topic_replication_factor and topic_config"},
      Known{RD_KAFKA_RESP_ERR_POLICY_VIOLATION, ErrorClass::misconfigured, "policy_violation",
            "make topic_partitions, topic_replication_factor and topic_config as the cluster's "
            "policy demands"},
      Known{RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, ErrorClass::rejected, "illegal_topic",
            "correct the topic template, or the values that it is made of"},
      Known{RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED, ErrorClass::throttled, "throttled",
            "raise the user's quota"},
  };
  if (code == 0) code = RD_KAFKA_RESP_ERR__INVALID_ARG;
  auto message = fmt::format("Kafka at {} does not make the topic '{}': {}", brokers, topic,
                             words(code, detail));
  const auto known = std::ranges::find(kOfCreation, code, &Known::code);
  if (known == kOfCreation.end()) {
    return make(ErrorClass::transient, "refused", std::move(message),
                "if this stays, look at the cluster");
  }
  return make(known->error_class, known->name, std::move(message), known->remedy);
}

Error cluster_error(int code, std::string_view detail, std::string_view brokers) {
  const auto said = words(code, detail);
  if (code == RD_KAFKA_RESP_ERR__SSL) return tls_error(said, brokers);
  if (is_login(code) && scram_is_outdated(said, rd_kafka_version())) {
    return outdated_scram(said, brokers);
  }
  const auto known = std::ranges::find(kKnown, code, &Known::code);
  if (known != kKnown.end() && known->error_class != ErrorClass::rejected) {
    return make(known->error_class, known->name,
                fmt::format("cannot use Kafka at {}: {}", brokers, said), known->remedy);
  }
  return make(ErrorClass::transient, std::string(kUnreachable),
              fmt::format("cannot reach Kafka at {}: {}", brokers, said),
              "check that the brokers run, that this machine reaches them and the addresses that "
              "they advertise, and that security_protocol is right");
}

Error iam_cluster_error(int code, std::string_view detail, std::string_view brokers) {
  Error error = cluster_error(code, detail, brokers);
  if (error.code == "authentication") {
    error.remedy =
        "allow the role or user kafka-cluster:Connect on the cluster, and look at region and at "
        "this machine's clock";
  } else if (error.code == kUnreachable) {
    error.remedy +=
        "; a broker may also close the connection where it refuses the credentials: "
        "allow them kafka-cluster:Connect";
  }
  return error;
}

Error property_error(std::string_view name, std::string_view detail) {
  return make(
      ErrorClass::misconfigured, "bad_property",
      detail.empty() ? fmt::format("{} is not right", name) : fmt::format("{}: {}", name, detail),
      "correct it, or leave it out");
}

}  // namespace relay::kafka
