#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "backends/redis/endpoint.h"
#include "config/fields.h"
#include "config/tls.h"
#include "core/error.h"

namespace relay::redis {

/// How to reach a server: what sink and source have in common.
struct ConnectionOptions : config::TlsOptions {
  std::vector<Endpoint> endpoints;
  std::chrono::milliseconds connect_timeout{5000};
  std::chrono::milliseconds response_timeout{5000};
  std::string pipeline;  ///< whose connection this is: its name at the server, and for the log
};

enum class FieldMode {
  payload,  ///< one field with the body
  columns,  ///< one field a column
};

struct SinkOptions {
  ConnectionOptions connection;
  FieldMode field_mode = FieldMode::payload;
  std::int64_t maxlen = 0;  ///< 0: streams are not trimmed
  std::size_t max_in_flight = 1000;
  std::size_t max_message_bytes = 512u << 20;
  bool ordered = true;  ///< messages of one key keep their order
};

struct SourceOptions {
  ConnectionOptions connection;
  std::string stream_key;
  std::string group;
  std::string consumer;
  std::string start = "0";
  std::size_t count = 500;
  std::chrono::milliseconds claim_idle{60000};
  std::string payload_field = "payload";
};

config::FieldTable sink_fields();
config::FieldTable source_fields();

/// Check what single options cannot say. `group` and `consumer` are what a source has that names
/// none.
Result<SinkOptions> parse_sink_options(const config::Values& values);
Result<SourceOptions> parse_source_options(const config::Values& values, std::string group,
                                           std::string consumer);

}  // namespace relay::redis
