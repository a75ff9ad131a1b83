#pragma once

#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "backends/sqs/options.h"
#include "backends/sqs/service.h"
#include "backends/sqs/size_limit.h"
#include "connector/sink.h"
#include "core/deadline.h"

namespace relay::sqs {

/// Sends messages to an SQS queue, up to ten a request and several requests at once. Delivered
/// means that the message's entry came back in `Successful`. SQS may take one entry of a request
/// and not another, so at most one message of a key is under way. What got no clear answer is
/// `unknown` and is sent again; a FIFO queue drops it where it has it already.
class SqsSink : public Sink {
 public:
  explicit SqsSink(SinkOptions options) : options_(std::move(options)) {}

  Result<void> open(std::stop_token stop) override;
  std::vector<Outcome> deliver(std::span<const Message> messages, Deadline deadline,
                               std::stop_token stop) override;
  void close() override;
  Inspection inspect(const std::optional<std::string>& subject, std::stop_token stop) override;

 private:
  class Delivery;

  /// Reads the queue's limit again where a message may be beyond it, but not often.
  void look_for_larger_limit(std::span<const Message> messages, Deadline deadline,
                             std::stop_token stop);
  void tell_limit();

  const SinkOptions options_;
  std::unique_ptr<Service> service_;
  SizeLimit limit_;
  SteadyClock::time_point looked_;  // when `limit_` was read
};

}  // namespace relay::sqs
