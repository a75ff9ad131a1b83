#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/deadline.h"
#include "core/mutex.h"

namespace relay::sqs {

/// The receipts of messages between receiving and deleting, by the numbers that the source gives
/// its records (1, 2, ...), and until when SQS hides each message from others. SQS answers for each
/// deletion, so receipts are forgotten one by one, in any order. Any thread.
class Receipts {
 public:
  struct Underway {
    std::int64_t number = 0;
    std::string receipt;
  };

  /// A message was received, and is hidden until `hidden_until`; its number. 0: it is under way
  /// already, and came again because it was hidden too shortly: its newest receipt is kept.
  std::int64_t add(const std::string& message_id, std::string receipt,
                   SteadyClock::time_point hidden_until);

  /// All up to and including `number`, oldest first. They stay until `forget`.
  std::vector<Underway> settled(std::int64_t number) const;
  /// All that are hidden no longer than `until`; they count as hidden until `then`.
  std::vector<Underway> due(SteadyClock::time_point until, SteadyClock::time_point then);
  /// What was due could not be hidden anew: it is due again at once.
  void not_hidden(std::int64_t number);
  void forget(std::int64_t number);
  /// What is under way, and is none of ours any more.
  std::vector<Underway> take_all();

 private:
  struct Message {
    std::string id;
    std::string receipt;
    SteadyClock::time_point hidden_until;
  };

  mutable Mutex mutex_;
  std::int64_t last_ RELAY_GUARDED_BY(mutex_) = 0;
  std::map<std::int64_t, Message> messages_ RELAY_GUARDED_BY(mutex_);               // by number
  std::unordered_map<std::string, std::int64_t> numbers_ RELAY_GUARDED_BY(mutex_);  // by id
};

}  // namespace relay::sqs
