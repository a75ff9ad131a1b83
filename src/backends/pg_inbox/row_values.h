#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/message.h"
#include "postgres/binary_array.h"

namespace relay::pg_inbox {

/// The parts of a message that an inbox can store.
enum class InboxField : std::uint8_t {
  event_id,
  event_type,
  source,
  aggregate_id,
  payload,
  headers,
  trace_id,
  subject,  ///< only if the column map names it
};

std::optional<InboxField> find_field(std::string_view name);
std::string_view to_string(InboxField field);
std::vector<std::string_view> field_names();

/// What a column can hold.
enum class ColumnKind : std::uint8_t { text, json, bytes };

using postgres::BinaryArray;

/// Adds the value of a message for a field. `raw`: the payload is stored in the form of
/// raw_payload(), whatever it is. Where a text column cannot hold a value that is not the message's
/// id (a binary key), it becomes \x and hexadecimal digits.
void add_value(BinaryArray& column, InboxField field, ColumnKind kind, const Message& message,
               std::string_view pipeline, bool raw);

/// The headers as a JSON object, without the id and the operation, which have columns of their own;
/// empty where there are none.
std::string headers_json(const Message& message);

/// The header trace_id, or the trace id in the header traceparent; empty where there is neither.
std::string_view trace_id_of(const Message& message);

}  // namespace relay::pg_inbox
