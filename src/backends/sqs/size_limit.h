#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace relay::sqs {

/// The largest message that SQS lets any queue take, and the most that the messages of one
/// SendMessageBatch may hold together: 1 MiB.
inline constexpr std::size_t kLargestBytes = 1'048'576;

/// How many bytes a message may have with its attributes, and what says so.
struct SizeLimit {
  enum class Said { by_queue, by_option, by_sqs };
  std::size_t bytes = kLargestBytes;
  Said said = Said::by_sqs;

  /// The smaller one of the queue's attribute and the option `max_message_bytes`. Where neither is
  /// known it is `kLargestBytes`: the queue itself then refuses what it does not take.
  static SizeLimit of(std::optional<std::size_t> queue, std::optional<std::size_t> option);
};

/// The attribute MaximumMessageSize in an answer to GetQueueAttributes. Nothing: the answer does
/// not tell it, or it is no size.
std::optional<std::size_t> largest_message_of(std::string_view answer);

}  // namespace relay::sqs
