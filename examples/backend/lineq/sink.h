#pragma once

#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "connector/sink.h"
#include "lineq/connection.h"
#include "lineq/options.h"

namespace relay::lineq {

/// Puts messages into queues. Delivered means that the server has answered OK, which it does when
/// the message is on its disk. Lines are sent without waiting for answers, and the server answers
/// in their order: what is unknown when a connection breaks is the end of what was sent, and is
/// sent again with the same ids. Messages keep their order.
class LineqSink : public Sink {
 public:
  explicit LineqSink(SinkOptions options) : options_(std::move(options)) {}

  Result<void> open(std::stop_token stop) override;
  std::vector<Outcome> deliver(std::span<const Message> messages, Deadline deadline,
                               std::stop_token stop) override;
  void close() override;
  Inspection inspect(const std::optional<std::string>& subject, std::stop_token stop) override;

 private:
  class Delivery;

  const SinkOptions options_;
  std::unique_ptr<Connection> connection_;
  std::unique_ptr<SocketCutter> cutter_;  // behind the connection: it ends before the socket
};

}  // namespace relay::lineq
