#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "core/message.h"

namespace relay::webhook {

/// Counts how often the server refused each message, and says when `max_attempts` is reached. The
/// counts are not stored: another process begins at 0. Pure; one thread.
class Attempts {
 public:
  /// Unset: no message is ever given up, and nothing is counted.
  explicit Attempts(std::optional<int> max) : max_(max) {}

  /// The server refused the request with these messages. True: each of them was refused
  /// `max_attempts` times or more.
  bool refused(std::span<const Message> messages);
  /// What became of this message is decided.
  void settled(const Message& message);

 private:
  // More than a delivery has. Beyond it counts are dropped, which costs attempts and nothing else.
  static constexpr std::size_t kMost = 65536;

  std::optional<int> max_;
  std::map<std::string, int, std::less<>> counts_;  // by id
};

}  // namespace relay::webhook
