#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "config/endpoint.h"
#include "config/fields.h"
#include "core/error.h"

namespace relay::lineq {

struct ConnectionOptions {
  config::Endpoint server;
  std::string token;                    ///< empty: the server asks for none
  std::chrono::milliseconds timeout{};  ///< for connecting, and without any answer
};

struct SinkOptions {
  ConnectionOptions connection;
  std::size_t max_message_bytes = 0;
};

struct SourceOptions {
  ConnectionOptions connection;
  std::string queue;
};

config::FieldTable sink_fields();
config::FieldTable source_fields();

/// `values` were checked against the table above. Misconfigured: a URL that is none.
Result<SinkOptions> parse_sink_options(const config::Values& values);
Result<SourceOptions> parse_source_options(const config::Values& values);

}  // namespace relay::lineq
