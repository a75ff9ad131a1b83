#pragma once

#include <cstdint>
#include <deque>

#include "backends/webhook/receiver_gate.h"
#include "backends/webhook/receiver_options.h"
#include "backends/webhook/receiver_queue.h"
#include "http/server/service.h"

namespace relay::webhook {

/// Puts requests into a queue and answers each when it is settled: 200, and not before. What is not
/// settled in time, and what the queue does not take, is answered with 503. Of the server's thread.
class ReceiverService : public http::Service {
 public:
  /// The queue outlives it.
  ReceiverService(const ReceiverOptions& options, RequestQueue& queue);

  /// Answers the requests up to this number with 200.
  void settle(std::int64_t number);
  /// Answers every request that waits with 503.
  void give_up_open();

  http::SharedAnswer check_head(const ReceivedRequest& request,
                                const http::Framing& framing) override;
  bool reserve(std::size_t bytes) override { return queue_.reserve(bytes); }
  void give_back(std::size_t bytes) override { queue_.give_back(bytes); }
  void begin(ReceivedRequest&& request, http::PendingAnswer pending) override;
  http::SharedAnswer late(std::int64_t number) override;
  http::SharedAnswer refusal(const http::Problem& problem) override;
  void stopping() override { give_up_open(); }

 private:
  /// A request whose answer waits for the pipeline.
  struct Open {
    std::int64_t number;
    http::PendingAnswer pending;
  };

  http::SharedAnswer answer_to(const Refusal& refusal) const;
  /// What a request is answered with that is no event, or may not come in. Null: it is an event.
  http::SharedAnswer answer_at_once(const ReceivedRequest& request) const;
  /// The queue's number of a request that is handed over to it, or why it is not.
  std::optional<Refusal> hand_over(ReceivedRequest&& request, std::int64_t& number);

  const ReceiverOptions options_;
  RequestQueue& queue_;
  const ReceiverGate gate_;
  const http::SharedAnswer committed_;
  std::deque<Open> open_;  // by number
};

}  // namespace relay::webhook
