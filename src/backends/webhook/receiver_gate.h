#pragma once

#include <chrono>
#include <optional>

#include "backends/webhook/receiver_options.h"
#include "backends/webhook/receiver_queue.h"
#include "core/deadline.h"
#include "http/server/request.h"

namespace relay::webhook {

using http::Framing;

/// Whether a request may come in. Options and queue outlive it. Any thread.
class ReceiverGate {
 public:
  ReceiverGate(const ReceiverOptions& options, const RequestQueue& queue)
      : options_(options), queue_(queue) {}

  /// Everything that can be said before the body is read.
  std::optional<Refusal> head(const ReceivedRequest& request, const Framing& framing,
                              SteadyClock::time_point now) const;
  /// Everything that can be said when the body is there.
  std::optional<Refusal> whole(const ReceivedRequest& request,
                               std::chrono::system_clock::time_point now) const;

 private:
  Refusal unauthorised() const;

  const ReceiverOptions& options_;
  const RequestQueue& queue_;
};

}  // namespace relay::webhook
