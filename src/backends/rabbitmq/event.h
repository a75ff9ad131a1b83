#pragma once

#include <cstdint>
#include <string>

#include "backends/rabbitmq/notice.h"
#include "connector/field_mapping.h"
#include "core/record.h"

namespace relay::rabbitmq {

/// How messages become events.
struct EventRules {
  std::string id_scope;  ///< begins ids that publishers gave, colon included; may be empty
  std::int64_t max_record_bytes = 32 << 20;
};

/// The event of one message, copied into `arena`; its `id` is for the caller to set. A message
/// without an id of its own has an empty one in `Event::id`.
Record to_record(const Delivered& message, const EventRules& rules, const FieldMapping& mapping,
                 Arena& arena);

}  // namespace relay::rabbitmq
