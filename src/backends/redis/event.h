#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "connector/field_mapping.h"
#include "core/record.h"

namespace relay::redis {

/// An entry of a stream. Views live as long as the reply that it came in.
struct Entry {
  std::string_view stream_key;
  std::string_view id;
  std::vector<std::pair<std::string_view, std::string_view>> fields;
  std::string_view incarnation = {};  ///< the stream's mark (incarnation.h); empty: not known
};

/// How entries become events.
struct EventRules {
  std::string id_scope;  ///< begins ids that are made up here, colon included; may be empty
  std::string payload_field = "payload";
  std::int64_t max_record_bytes = 32 << 20;
};

/// The event of one entry, copied into `arena`; its `id` is for the caller to set.
Record to_record(const Entry& entry, const EventRules& rules, const FieldMapping& mapping,
                 Arena& arena);

}  // namespace relay::redis
