#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "config/fields.h"
#include "connector/field_mapping.h"

namespace relay::fuzz {

inline config::Node text(std::string_view value) {
  return config::Node(std::string(value), "");
}

/// A mapping that looks at each part of a message.
inline const FieldMapping& mapping() {
  static const FieldMapping made = [] {
    const config::Node::Object object = {{"id_from", text("json:/id")},
                                         {"event_type_from", text("template:{subject}-{header:t}")},
                                         {"aggregate_id_from", text("header:key")},
                                         {"trace_id_from", text("key")}};
    const auto checked = config::check(object, FieldMapping::fields(), "fuzz");
    return *FieldMapping::make(checked.values);
  }();
  return made;
}

/// The mapping, or for every second input none.
inline const FieldMapping& mapping_for(std::uint8_t choice) {
  static const FieldMapping none;
  return choice % 2 == 0 ? none : mapping();
}

/// Takes the first line away from `rest`.
inline std::string_view next_line(std::string_view& rest) {
  const std::string_view line = rest.substr(0, rest.find('\n'));
  rest.remove_prefix(std::min(line.size() + 1, rest.size()));
  return line;
}

}  // namespace relay::fuzz
