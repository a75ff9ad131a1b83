#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include "backends/rabbitmq/connection.h"
#include "backends/rabbitmq/options.h"
#include "core/deadline.h"

namespace relay::rabbitmq {

/// How many messages a queue has ready, or a stream altogether. It is asked for over a connection
/// of its own, because an answer comes behind all messages that were handed out before it; at most
/// once a second, and seldom while there is no answer. One thread.
class QueueDepth {
 public:
  QueueDepth(ConnectionOptions options, std::string queue)
      : options_(std::move(options)), queue_(std::move(queue)) {
    options_.heartbeat = {};  // each question has a time-out
  }

  /// Messages that are ready in a queue. Null: not known.
  std::optional<std::int64_t> ready();
  /// Messages of a stream from this offset on. Null: not known.
  std::optional<std::int64_t> of_stream_from(std::int64_t offset);
  void close() { connection_.reset(); }

 private:
  std::optional<std::int64_t> ask();
  std::optional<std::int64_t> ask_first();

  ConnectionOptions options_;
  const std::string queue_;
  EndpointWalk endpoints_;
  std::unique_ptr<Connection> connection_;
  std::optional<std::int64_t> count_;
  SteadyClock::time_point ask_after_{};
  std::optional<std::int64_t> first_;  // offset of a stream
  SteadyClock::time_point first_after_{};
};

}  // namespace relay::rabbitmq
