#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/rabbitmq/arguments.h"
#include "backends/rabbitmq/endpoint.h"
#include "backends/rabbitmq/stream.h"
#include "config/fields.h"
#include "config/tls.h"
#include "connector/key_order.h"
#include "core/error.h"

namespace relay::rabbitmq {

/// What goes before the same parts of the URLs.
struct Login {
  std::optional<std::string> user;
  std::optional<std::string> password;
  std::optional<std::string> vhost;
};

/// How to reach a broker: what sink and source have in common.
struct ConnectionOptions : config::TlsOptions {
  std::vector<Endpoint> endpoints;  ///< `login` is in them
  Login login;
  std::chrono::milliseconds connect_timeout{};
  std::chrono::milliseconds operation_timeout{};
  std::chrono::seconds heartbeat{};  ///< what the broker is asked for; 0: none
  /// As in the sink's table: a source has no such option, and its sockets have the limit too.
  std::chrono::milliseconds ack_timeout{10000};
  std::string pipeline;  ///< whose connection this is: its name at the broker, and for the log
};

struct SinkOptions {
  ConnectionOptions connection;
  std::string exchange;  ///< empty: the broker's default exchange
  std::string exchange_type;
  bool declare = false;
  Arguments arguments;  ///< of the exchange that `declare` makes
  bool mandatory = false;
  bool persistent = false;
  std::size_t max_in_flight = 0;
  std::size_t max_message_bytes = 0;
  KeyOrder key_order{};
};

/// Exchange and routing key of each binding.
using Bindings = std::vector<std::pair<std::string, std::string>>;

struct SourceOptions {
  ConnectionOptions connection;
  std::string queue;
  bool declare = false;
  std::string queue_type;
  std::optional<std::int64_t> delivery_limit;  ///< -1: none
  std::string dead_letter_exchange;
  std::string dead_letter_routing_key;
  Arguments arguments;  ///< of the queue, beside those above
  std::uint16_t prefetch = 0;
  StreamStart start;
  Bindings bindings;
};

config::FieldTable sink_fields();
config::FieldTable source_fields();

/// Check what single options cannot say.
Result<SinkOptions> parse_sink_options(const config::Values& values);
Result<SourceOptions> parse_source_options(const config::Values& values);

}  // namespace relay::rabbitmq
