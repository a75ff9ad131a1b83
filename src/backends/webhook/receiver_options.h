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
  std::uint16_t port = 8080;
  std::string listen;  ///< as it was written, for messages
  std::string path = "/inbox";
  ReceiverAuth auth;
  std::size_t max_body_bytes = 10u << 20;
  std::size_t max_header_bytes = 16u << 10;
  std::size_t max_connections = 1024;
  std::size_t max_waiting = 10000;
  std::size_t max_waiting_bytes = 64u << 20;
  std::chrono::milliseconds idle_timeout{60000};
  std::chrono::milliseconds request_timeout{30000};
  std::chrono::milliseconds response_timeout{30000};
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
