#pragma once

#include <chrono>
#include <optional>

#include "backends/webhook/receiver_options.h"
#include "backends/webhook/receiver_queue.h"
#include "core/deadline.h"

namespace relay::webhook {

/// How a request says where its body ends.
struct Framing {
  bool http_1_0 = false;
  bool length = false;
  bool chunked = false;
};

/// Whether a request may come in. What it is asked lives as long as it does. Any thread.
class ReceiverGate {
 public:
  ReceiverGate(const ReceiverOptions& options, const RequestQueue& queue)
      : options_(options), queue_(queue) {}

  /// Everything that can be said before the body is read.
  std::optional<Refusal> head(const ReceivedRequest& request, const Framing& framing,
                              SteadyClock::time_point now) const;
  /// What is left to say when it is there.
  std::optional<Refusal> whole(const ReceivedRequest& request,
                               std::chrono::system_clock::time_point now) const;

 private:
  Refusal unauthorised() const;

  const ReceiverOptions& options_;
  const RequestQueue& queue_;
};

}  // namespace relay::webhook
