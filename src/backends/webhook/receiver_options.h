#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "backends/webhook/receiver_auth.h"
#include "config/fields.h"
#include "core/error.h"

namespace relay::webhook {

/// The options of the receiver, checked.
struct ReceiverOptions {
  std::string host;  ///< an IP address
  std::uint16_t port = 0;
  std::string listen;  ///< host and port as they were written, for messages
  std::string path;
  ReceiverAuth auth;
  std::size_t max_body_bytes = 0;
  std::size_t max_header_bytes = 0;
  std::size_t max_connections = 0;
  std::size_t max_waiting = 0;
  std::size_t max_waiting_bytes = 0;
  std::chrono::milliseconds idle_timeout{};
  std::chrono::milliseconds request_timeout{};
  std::chrono::milliseconds response_timeout{};
  std::string tls_cert;  ///< empty: no TLS
  std::string tls_key;
  std::string tls_ca;  ///< not empty: clients show a certificate of its
  std::string pipeline;
};

config::FieldTable receiver_fields();

/// Checks what single options cannot say. `max_record_bytes` bounds the body too.
Result<ReceiverOptions> parse_receiver_options(const config::Values& values,
                                               std::int64_t max_record_bytes);

}  // namespace relay::webhook
