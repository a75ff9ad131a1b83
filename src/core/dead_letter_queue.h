#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "core/dead_letter.h"
#include "core/error.h"

namespace relay {

/// Where a pipeline's rejected messages are kept until an operator decides about them. Called by
/// the sender thread.
class DeadLetterQueue {
 public:
  virtual ~DeadLetterQueue() = default;

  /// Durable when it returns. For sources that do not keep dead letters with their position.
  virtual Result<void> store(std::span<const DeadLetter> letters) = 0;
  /// Dead letters that an operator asked to send again, oldest first.
  virtual Result<std::vector<DeadLetter>> take_retries(std::size_t limit) = 0;
  virtual Result<void> resolve(std::int64_t dlq_id) = 0;
  virtual Result<void> failed_again(std::int64_t dlq_id, const Error& error) = 0;
  /// Keys of unresolved dead letters: with `on_reject = park_key`, later messages wait behind them.
  virtual Result<std::set<std::string>> parked_keys() = 0;
};

}  // namespace relay
