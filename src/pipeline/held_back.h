#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <span>
#include <vector>

#include "core/deadline.h"
#include "core/message.h"
#include "pipeline/spec.h"

namespace relay {

/// The messages of one batch that the broker refused while it may take others
/// (Outcome::others_may_go). Each waits for its own next try, the longer the more often it was
/// refused, and what need not follow it goes on. Pure: the caller says what time it is.
class HeldBack {
 public:
  /// What waits behind a message that is held back.
  enum class Behind { nothing, same_key, all };

  explicit HeldBack(const PipelineSpec& spec);

  bool empty() const { return waiting_.empty(); }

  /// What became of the messages with these indexes.
  void note(std::span<const std::size_t> sent, std::span<const Outcome> outcomes,
            SteadyClock::time_point now);

  /// Of the pending messages those that are to be sent now, in their order: of those that may be
  /// sent, the ones that were refused least often. (A sink ends a delivery after some refusals in a
  /// row: what was refused often would keep it from the others.)
  std::vector<std::size_t> sendable(const MessageBatch& batch, std::span<const std::size_t> pending,
                                    SteadyClock::time_point now) const;

  /// When the next message may be sent that may not be sent now.
  SteadyClock::time_point next_due(SteadyClock::time_point now) const;

 private:
  struct Wait {
    int refusals = 0;
    SteadyClock::time_point due{};
  };
  std::chrono::milliseconds delay_after(int refusals) const;

  const Behind behind_;
  const std::chrono::milliseconds retry_min_;
  const std::chrono::milliseconds retry_max_;
  std::map<std::size_t, Wait> waiting_;  // by index
};

}  // namespace relay
