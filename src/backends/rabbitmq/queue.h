#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stop_token>
#include <string_view>

#include "backends/rabbitmq/connection.h"
#include "backends/rabbitmq/options.h"
#include "core/error.h"

namespace relay::rabbitmq {

enum class QueueType {
  unknown,  ///< a queue, or, with a broker that is not RabbitMQ 3.10 or newer, also a stream
  classic,
  quorum,
  stream,
};

/// Which type a broker names when it refuses a consumer that asks for a place in a stream.
QueueType type_in_refusal(std::string_view message);

struct FoundQueue {
  QueueType type = QueueType::unknown;
  std::int64_t count = 0;             ///< messages that are ready, or that a stream has
  bool declared = false;              ///< it was made just now
  std::optional<std::int64_t> first;  ///< offset of the first message of a stream, where known
};

/// The offset of the first message that a consumer of this connection, which began at the beginning
/// of a stream, is handed. Null: none came within a moment.
std::optional<std::int64_t> first_offset(Connection& connection);

/// Finds the queue of a source, and makes it where it is absent and `declare` says so. One that is
/// there is taken as it is, of whatever type, and nothing is changed. Its type is found out by
/// asking for a place in a stream, which other types refuse.
Result<FoundQueue> find_queue(const SourceOptions& options, bool declare, EndpointWalk& walk,
                              std::stop_token stop);

/// Warns where a quorum queue that was there has, or may have, a limit of deliveries.
void warn_of_limit(const SourceOptions& options, EndpointWalk& walk, std::stop_token stop);

}  // namespace relay::rabbitmq
