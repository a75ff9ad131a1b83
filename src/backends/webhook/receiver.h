#pragma once

#include <cstdint>
#include <memory>

#include "backends/webhook/receiver_options.h"
#include "backends/webhook/receiver_queue.h"
#include "core/error.h"

namespace relay::webhook {

/// An HTTP server that puts requests into a queue and answers each when it is settled: 200, and not
/// before. What is not settled in time, what the queue does not take, and what is open when the
/// server stops, is answered with 503. Everything that a client can choose is bounded: bytes,
/// connections, and how long each step takes.
class Receiver {
 public:
  /// Listens. The queue outlives the server. Misconfigured: the address or the TLS files are not to
  /// be used.
  static Result<std::unique_ptr<Receiver>> start(const ReceiverOptions& options,
                                                 RequestQueue& queue);
  /// Whether it could listen, another use of the address aside. Accepts nothing.
  static Result<void> could_start(const ReceiverOptions& options);
  /// Answers what is open with 503, and ends all connections, within a few seconds.
  ~Receiver();

  /// Every request up to this number is settled. Any thread.
  void settle(std::int64_t number);
  /// Answers what is open with 503, and goes on. Any thread.
  void give_up_open();

 private:
  struct Impl;
  explicit Receiver(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace relay::webhook
