#pragma once

#include <cstddef>
#include <deque>
#include <span>
#include <vector>

#include "core/message.h"

namespace relay::webhook {

/// A run of messages that are sent in one request.
struct Run {
  std::size_t first = 0;
  std::size_t count = 0;
};

/// Says which run may be sent next when at most one with a key may be under way. Runs are named by
/// their index. Pure; one thread.
class SendOrder {
 public:
  /// `single`: a run waits for all earlier ones that share a key with it; else all go in order.
  SendOrder(std::span<const Message> messages, std::span<const Run> runs, bool single);

  /// The next run that may be sent now; -1: none.
  std::ptrdiff_t next();
  /// A run came to a good end (delivered, or rejected for good).
  void finished(std::size_t run);

 private:
  std::vector<std::size_t> waits_for_;               // how many earlier runs
  std::vector<std::vector<std::size_t>> followers_;  // of each run
  std::deque<std::size_t> ready_;
};

}  // namespace relay::webhook
