#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "backends/rabbitmq/confirms.h"
#include "backends/rabbitmq/connection.h"
#include "backends/rabbitmq/options.h"
#include "connector/sink.h"

namespace relay::rabbitmq {

/// Publishes to an exchange. Delivered means that the broker confirmed the message and did not
/// return it.
///
/// Many messages are under way on one channel, which keeps their order. A broker may refuse one
/// (a full queue) or return one (nothing bound) and take the next: after the first such refusal at
/// most one message of a key is under way. A channel or connection that breaks is replaced at the
/// next delivery, and what was not confirmed is sent again with the same ids; RabbitMQ does not
/// know them, so it may be stored twice. A broker closes the channel over a message that it cannot
/// take at all: the messages that were under way are then sent one at a time, and the one that
/// closes it again is rejected.
class RabbitSink : public Sink {
 public:
  /// `ordered`: messages of one key keep their order.
  RabbitSink(SinkOptions options, bool ordered) : options_(std::move(options)), ordered_(ordered) {}

  Result<void> open(std::stop_token stop) override;
  std::vector<Outcome> deliver(std::span<const Message> messages, Deadline deadline,
                               std::stop_token stop) override;
  std::optional<bool> has_ended() override { return !still_good(); }
  void close() override;
  Inspection inspect(const std::optional<std::string>& subject, std::stop_token stop) override;

 private:
  Result<bool> find_exchange();
  Result<void> make_exchange(std::stop_token stop);
  bool still_good();
  bool one_of_a_key() const;

  const SinkOptions options_;
  const bool ordered_;
  EndpointWalk endpoints_;
  std::unique_ptr<Connection> connection_;
  Confirms confirms_;  // of the connection's channel
  bool refusals_seen_ = false;
};

}  // namespace relay::rabbitmq
