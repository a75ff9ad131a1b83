#include "stream/event_row.h"

#include "core/uuid.h"
#include "postgres/byte_reader.h"
#include "postgres/clock.h"

namespace relay::stream {

namespace {

using Value = std::optional<std::string_view>;

/// The text of a jsonb value.
Value json(const Value& value) {
  constexpr char kVersion = 1;
  if (!value || value->empty() || value->front() != kVersion) return std::nullopt;
  return value->substr(1);
}

std::optional<std::uint64_t> number(const Value& value) {
  if (!value || value->size() != sizeof(std::uint64_t)) return std::nullopt;
  return postgres::ByteReader(*value).int64();
}

}  // namespace

std::optional<EventRow> event_of(const EventValues& values) {
  const auto& [id, payload, metadata, created_at, xid, seq] = values;
  const auto payload_text = json(payload);
  const auto metadata_text = metadata ? json(metadata) : std::string_view();
  const auto microseconds = number(created_at);
  const auto transaction = number(xid);
  const auto order = number(seq);
  if (!id || id->size() != kUuidBytes || !payload_text || !metadata_text || !microseconds ||
      !transaction || !order) {
    return std::nullopt;
  }
  EventRow row;
  row.id = *id;
  row.payload = *payload_text;
  row.metadata = *metadata_text;
  row.created_at =
      postgres::kEpoch + std::chrono::microseconds(static_cast<std::int64_t>(*microseconds));
  row.xid = *transaction;
  row.seq = static_cast<std::int64_t>(*order);
  return row;
}

Result<EventRow> event_of(const PGresult* result, int first) {
  EventValues values;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const int column = first + static_cast<int>(i);
    if (PQgetisnull(result, 0, column) != 0) continue;
    values[i] = std::string_view(PQgetvalue(result, 0, column),
                                 static_cast<std::size_t>(PQgetlength(result, 0, column)));
  }
  const auto row = event_of(values);
  if (row) return *row;
  return fail(misconfigured("stream_events", "pgstream.events has columns of other types",
                            "see which program made the table"));
}

}  // namespace relay::stream
