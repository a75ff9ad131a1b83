#pragma once

#include <cstddef>
#include <deque>
#include <span>
#include <vector>

#include "core/message.h"

namespace relay {

/// Says which message may be sent next when at most one of a key may be under way. Messages are
/// named by their index. Pure; one thread.
class KeyGate {
 public:
  /// `single`: one of a key at a time; else all in order.
  KeyGate(std::span<const Message> messages, bool single);

  /// The next message that may be sent now; -1: none (all were given out, or wait for others).
  std::ptrdiff_t next();
  /// A message came to a good end (stored, or rejected for good): the next of its key may go.
  void finished(std::size_t message);

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  bool single_;
  std::size_t count_;
  std::size_t given_ = 0;               // in order, where not `single`
  std::vector<std::size_t> following_;  // the next message of the same key
  std::deque<std::size_t> ready_;
};

}  // namespace relay
