#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "backends/redis/connection.h"
#include "backends/redis/options.h"
#include "connector/sink.h"

namespace relay::redis {

/// Adds messages to Redis streams. Delivered means that the reply to XADD came.
///
/// Commands are pipelined. A server may refuse one for lack of memory and take the next: so where
/// messages keep their order, those that are under way together are one transaction (MULTI, EXEC),
/// which a server takes wholly or, for reasons of its own, not at all; only what a key itself
/// forbids (it holds no stream) strikes single messages. The next transaction goes out when the
/// last is known to be in. A connection that breaks is replaced at the next delivery, and what was
/// not answered is sent again with the same ids: Redis does not know them, so it may be stored
/// twice.
class RedisSink : public Sink {
 public:
  explicit RedisSink(SinkOptions options) : options_(std::move(options)) {}

  Result<void> open(std::stop_token stop) override;
  std::vector<Outcome> deliver(std::span<const Message> messages, Deadline deadline,
                               std::stop_token stop) override;
  void close() override;
  Inspection inspect(const std::optional<std::string>& subject, std::stop_token stop) override;

 private:
  class Delivery;

  Result<void> connect(int stop_fd);

  const SinkOptions options_;
  EndpointWalk endpoints_;
  std::unique_ptr<Connection> connection_;
};

}  // namespace relay::redis
