#pragma once

#include <cstdint>
#include <string>

#include "core/record.h"
#include "pipeline/field_mapping.h"
#include "rabbitmq/notice.h"

namespace relay::rabbitmq {

/// The event of one message, copied into `arena`; its `id` is for the caller to set. A message
/// without an id of its own has an empty one in `Event::id`.
Record to_record(const Delivered& message, const FieldMapping& mapping,
                 std::int64_t max_record_bytes, Arena& arena);

}  // namespace relay::rabbitmq
