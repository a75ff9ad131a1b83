#pragma once

#include <string_view>

#include "core/error.h"

namespace relay::kafka {

/// What librdkafka or a broker says of one message. `code` is an rd_kafka_resp_err_t, `detail` its
/// words, `topic` the message's. Rejected: this message is poison. Else it may be sent again.
Error delivery_error(int code, std::string_view detail, std::string_view topic,
                     std::string_view brokers);

/// Why the cluster cannot be reached or used. `code` 0: nothing was heard from it.
Error cluster_error(int code, std::string_view detail, std::string_view brokers);

/// A property that librdkafka does not take.
Error property_error(std::string_view name, std::string_view detail);

}  // namespace relay::kafka
