#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "aws/identity.h"
#include "config/fields.h"
#include "core/error.h"
#include "http/client.h"

namespace relay::sqs {

/// What sink and source need to reach a queue.
struct QueueOptions {
  std::string queue_url;
  std::string queue;     ///< the last part of `queue_url`: what may be shown
  std::string endpoint;  ///< where requests go: "https://host:port/"
  std::string host;      ///< "host:port" of `endpoint`
  aws::Identity identity;
  bool fifo = false;
  std::chrono::milliseconds timeout{};
  http::ClientOptions client;
  std::string pipeline;
};

/// The options of the sink, checked.
struct SinkOptions {
  QueueOptions queue;
  std::size_t max_in_flight = 0;
  std::optional<std::size_t> max_message_bytes;  ///< lowers what the queue says
  bool ordered = true;                           ///< at most one message of a key under way
};

/// How messages become events.
struct EventRules {
  std::string id_scope;  ///< begins ids that SQS gave, colon included; may be empty
  std::int64_t max_record_bytes = 32 << 20;
};

/// The options of the source, checked.
struct SourceOptions {
  QueueOptions queue;
  std::chrono::milliseconds wait{};
  std::chrono::milliseconds visibility_timeout{};
  std::size_t max_in_flight = 0;
  EventRules events;
};

config::FieldTable sink_fields();
config::FieldTable source_fields();

/// Checks what single options cannot say.
Result<SinkOptions> parse_sink_options(const config::Values& values);
Result<SourceOptions> parse_source_options(const config::Values& values);

/// "https://sqs.eu-west-1.amazonaws.com/..." is in eu-west-1; empty where the host does not say.
std::string region_of_host(std::string_view host);

}  // namespace relay::sqs
