#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "connector/field_mapping.h"
#include "core/record.h"

namespace relay::kafka {

/// A record of a topic, as the broker gave it. Views live as long as the consumer says.
struct Consumed {
  std::string_view topic;
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  std::int64_t timestamp_ms = -1;  ///< -1: the broker knows none
  std::optional<std::string_view> key;
  std::optional<std::string_view> value;
  std::vector<std::pair<std::string_view, std::string_view>> headers;
};

/// How records of topics become events.
struct EventRules {
  std::string id_scope;  ///< begins ids that are made up here, colon included; may be empty
  std::string cluster;   ///< the cluster's own id
  std::int64_t max_record_bytes = 32 << 20;
};

/// The event of one record of a topic, copied into `arena`; its `id` is for the caller to set. Text
/// that is not UTF-8 (a binary key or header) becomes "base64:...".
Record to_record(const Consumed& consumed, const EventRules& rules, const FieldMapping& mapping,
                 Arena& arena);

}  // namespace relay::kafka
