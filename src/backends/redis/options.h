#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backends/redis/endpoint.h"
#include "config/fields.h"
#include "config/tls.h"
#include "core/error.h"

namespace relay::redis {

/// What goes before the same parts of the URLs.
struct Login {
  std::optional<std::string> user;
  std::optional<std::string> password;
  int database = 0;
};

/// How to reach a server: what sink and source have in common.
struct ConnectionOptions : config::TlsOptions {
  std::vector<Endpoint> endpoints;  ///< `login` is in them
  Login login;
  std::chrono::milliseconds connect_timeout{};
  std::chrono::milliseconds response_timeout{};
  std::string pipeline;  ///< whose connection this is: its name at the server, and for the log
};

enum class FieldMode {
  payload,  ///< one field with the body
  columns,  ///< one field a column
};

struct SinkOptions {
  ConnectionOptions connection;
  FieldMode field_mode{};
  std::optional<std::int64_t> maxlen;  ///< unset: streams are not trimmed
  std::size_t max_in_flight = 0;
  std::size_t max_message_bytes = 0;
  bool ordered = true;  ///< messages of one key keep their order
};

struct SourceOptions {
  ConnectionOptions connection;
  std::string stream_key;
  std::string group;
  std::string consumer;
  std::string start;
  std::size_t count = 0;
  std::chrono::milliseconds claim_idle{};
  std::chrono::milliseconds consumer_idle{};  ///< 0: consumers that are gone stay in the group
  std::string payload_field;
};

config::FieldTable sink_fields();
config::FieldTable source_fields();

/// Check what single options cannot say. `group` and `consumer` are what a source has that names
/// none.
Result<SinkOptions> parse_sink_options(const config::Values& values);
Result<SourceOptions> parse_source_options(const config::Values& values, std::string group,
                                           std::string consumer);

}  // namespace relay::redis
