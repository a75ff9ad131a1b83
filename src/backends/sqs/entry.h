#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "backends/sqs/options.h"
#include "backends/sqs/size_limit.h"
#include "core/error.h"
#include "core/message.h"

namespace relay::sqs {

/// A message as an entry of SendMessageBatch.
struct Entry {
  std::string fields;     ///< members of a JSON object behind "Id": ,"MessageBody":"…"
  std::size_t bytes = 0;  ///< what SQS counts: the body, and names, types and values of attributes
};

/// The entry of a message. Rejected: the body is empty, larger with its attributes than the limit,
/// or holds characters that SQS does not take.
Result<Entry> make_entry(const Message& message, const SinkOptions& options,
                         const SizeLimit& limit);

/// UTF-8, and of the characters that XML allows.
bool is_legal_text(std::string_view text);

/// A text as id of a FIFO queue: itself where it has up to 128 characters of those allowed, else
/// its SHA-256.
std::string fifo_id(std::string_view text);

/// SQS takes ten attributes. The first nine are those of each message and then the headers that
/// attributes can carry; where more are left, the tenth is this one, a JSON object of the rest.
inline constexpr std::string_view kOtherHeaders = "pgtrickle-headers";

}  // namespace relay::sqs
