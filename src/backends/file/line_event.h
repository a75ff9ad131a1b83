#pragma once

#include <cstdint>
#include <functional>
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

/// The event of one line, copied into `arena`; its `id` is for the caller to set. `made_up_id` is
/// called where neither the mapping nor the line names an id: it makes one of the place of the
/// line, in several parts (connector/source_id.h). A line that is not JSON becomes an event too; a
/// line that is too long is refused.
Record to_record(const Line& line, const std::function<std::string()>& made_up_id,
                 const LineRules& rules, const FieldMapping& mapping, Arena& arena);

/// A number that differs where the bytes do, nearly always.
std::uint32_t digest(std::string_view bytes);

/// Nothing but white space: no event.
bool is_blank(std::string_view text);

}  // namespace relay::file
