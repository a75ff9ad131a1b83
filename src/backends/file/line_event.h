#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "backends/file/line_reader.h"
#include "connector/field_mapping.h"
#include "core/record.h"

namespace relay::file {

/// How lines become events.
struct LineRules {
  std::string id_scope;  ///< begins each id, colon included; may be empty
  std::string path;
  std::int64_t max_record_bytes = 32 << 20;
};

/// The event of one line, copied into `arena`; its `id` is for the caller to set. `place`: what
/// tells this line from any other, made of several parts (connector/source_id.h). A line that is no
/// JSON becomes one all the same; one that is too long is refused.
Record to_record(const Line& line, const std::string& place, const LineRules& rules,
                 const FieldMapping& mapping, Arena& arena);

/// A short text that differs where the bytes do, nearly always.
std::string digest(std::string_view bytes);

/// Nothing but white space: no event.
bool is_blank(std::string_view text);

}  // namespace relay::file
