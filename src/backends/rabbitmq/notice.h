#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/error.h"

namespace relay::rabbitmq {

/// The broker has taken (or refused) the publish of that number; with `multiple` all up to it.
struct Confirm {
  std::uint64_t tag = 0;
  bool multiple = false;
  bool accepted = true;
};

/// A mandatory message that no queue takes. Its confirm follows.
struct Returned {
  std::string message_id;
  std::string exchange;
  std::string routing_key;
};

/// The broker has closed the channel: the connection is of no use any more.
struct ChannelClosed {
  int code = 0;
  bool by_publish = false;  ///< a message that was published is the reason
  Error error;
};

/// A message for a consumer. Views point into it.
struct Delivered {
  std::uint64_t tag = 0;
  bool redelivered = false;
  std::string exchange;
  std::string routing_key;
  std::string message_id;
  std::string content_type;
  std::int64_t timestamp = 0;       ///< seconds since 1970; 0: none
  std::int64_t stream_offset = -1;  ///< in its stream; -1: it comes from a queue
  std::int64_t delivery_count = 0;  ///< how often a quorum queue counts that it came before
  std::vector<std::pair<std::string, std::string>> headers;  ///< as text
  std::string body;
};

/// The broker has ended the consumer: its queue is gone.
struct ConsumerCancelled {};

using Notice = std::variant<Confirm, Returned, ChannelClosed, Delivered, ConsumerCancelled>;

}  // namespace relay::rabbitmq
