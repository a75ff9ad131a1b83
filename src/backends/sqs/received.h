#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/sqs/options.h"
#include "connector/field_mapping.h"
#include "core/error.h"
#include "core/record.h"

namespace relay::sqs {

/// A message as ReceiveMessage brings it.
struct Received {
  std::string id;       ///< MessageId: the same each time it is delivered, and no other's
  std::string receipt;  ///< of this delivery
  std::string body;
  std::string group;             ///< of a FIFO queue
  std::string deduplication_id;  ///< of a FIFO queue, which knows it for five minutes only
  std::int64_t sent_ms = 0;
  /// Message attributes; those that the sink packed into one are unpacked.
  std::vector<std::pair<std::string, std::string>> attributes;

  const std::string* attribute(std::string_view name) const;
  /// A message attribute; else MessageId or MessageDeduplicationId, by these names.
  const std::string* attribute_or_own(std::string_view name) const;
};

/// The messages of an answer to ReceiveMessage. Transient: it is no such answer.
Result<std::vector<Received>> parse_received(std::string_view body, std::string_view where);

/// The event of one message, copied into `arena`; its number is for the caller to set. Its id is
/// what the mapping says, else the attribute pgtrickle-id, else the MessageId behind the scope.
Record to_record(const Received& message, std::string_view queue, const EventRules& rules,
                 const FieldMapping& mapping, Arena& arena);

}  // namespace relay::sqs
