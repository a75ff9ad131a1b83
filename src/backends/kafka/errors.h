#pragma once

#include <string_view>

#include "core/error.h"

namespace relay::kafka {

/// What librdkafka or a broker says of one message. `code` is an rd_kafka_resp_err_t, `detail` its
/// words, `topic` the message's. Rejected: this message is poison. Else it may be sent again.
Error delivery_error(int code, std::string_view detail, std::string_view topic,
                     std::string_view brokers);

/// Why a topic cannot be made. Rejected: no topic can have that name. `code` 0: the library says
/// so.
Error creation_error(int code, std::string_view detail, std::string_view topic,
                     std::string_view brokers);

/// Why the cluster cannot be reached or used. `code` 0: nothing was heard from it.
Error cluster_error(int code, std::string_view detail, std::string_view brokers);

/// The same, of a client that signs in with AWS credentials.
Error iam_cluster_error(int code, std::string_view detail, std::string_view brokers);

/// Whether a login that failed with these words may have had the right password: SCRAM of
/// librdkafka before 2.6.1 (`library`: its rd_kafka_version()) repeats the client's nonce, which
/// brokers refuse from Kafka 4.0 on.
bool scram_is_outdated(std::string_view words, int library);

/// A property that librdkafka does not take.
Error property_error(std::string_view name, std::string_view detail);

}  // namespace relay::kafka
