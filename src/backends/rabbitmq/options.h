#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "backends/rabbitmq/endpoint.h"
#include "backends/rabbitmq/stream.h"
#include "config/fields.h"
#include "config/tls.h"
#include "connector/key_order.h"
#include "core/error.h"

namespace relay::rabbitmq {

/// How to reach a broker: what sink and source have in common.
struct ConnectionOptions : config::TlsOptions {
  std::vector<Endpoint> endpoints;
  std::chrono::milliseconds connect_timeout{5000};
  std::chrono::milliseconds operation_timeout{5000};
  std::chrono::milliseconds ack_timeout{10000};
  std::string pipeline;  ///< whose connection this is: its name at the broker, and for the log
};

struct SinkOptions {
  ConnectionOptions connection;
  std::string exchange;  ///< empty: the broker's default exchange
  std::string exchange_type = "topic";
  bool declare = true;
  bool mandatory = true;
  bool persistent = true;
  std::size_t max_in_flight = 1000;
  std::size_t max_message_bytes = 128u << 20;
  KeyOrder key_order = KeyOrder::automatic;
};

struct SourceOptions {
  ConnectionOptions connection;
  std::string queue;
  bool declare = true;
  std::string queue_type = "quorum";
  std::uint16_t prefetch = 1000;
  StreamStart start;
  /// Exchange and routing key of each binding.
  std::vector<std::pair<std::string, std::string>> bindings;
};

config::FieldTable sink_fields();
config::FieldTable source_fields();

/// Check what single options cannot say.
Result<SinkOptions> parse_sink_options(const config::Values& values);
Result<SourceOptions> parse_source_options(const config::Values& values);

}  // namespace relay::rabbitmq
