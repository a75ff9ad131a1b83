#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "backends/nats/options.h"
#include "config/fields.h"
#include "core/error.h"

namespace relay::nats {

/// The options of the source, checked.
struct SourceOptions {
  Options connection;  ///< endpoints, credentials, TLS, time-outs and the stream that is made
  std::string stream;
  std::string subject;  ///< filter; empty: all of the stream
  std::string consumer;
  std::string deliver_policy;
  std::chrono::milliseconds ack_wait{};
  std::int64_t max_deliver = 0;
  int fetch = 0;
};

config::FieldTable source_fields();

/// Checks what single options cannot say. `default_consumer`: where `consumer` is not set.
Result<SourceOptions> parse_source_options(const config::Values& values,
                                           std::string default_consumer);

}  // namespace relay::nats
