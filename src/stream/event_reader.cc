#include "stream/event_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "postgres/byte_reader.h"
#include "postgres/clock.h"

namespace relay::stream {

using postgres::pgoutput::Insert;
using postgres::pgoutput::Relation;
using postgres::pgoutput::Value;

namespace {

constexpr std::array<std::string_view, 6> kNames = {"id",         "payload", "metadata",
                                                    "created_at", "xid",     "seq"};

Error not_understood(const Relation& relation, std::string_view what) {
  return misconfigured("stream_events",
                       fmt::format("{}.{}: {}", relation.schema, relation.name, what),
                       "let the daemon make its publication anew: DROP PUBLICATION, then start it");
}

/// The text of a jsonb value.
std::optional<std::string_view> json(const Value& value) {
  if (value.kind == Value::Kind::null) return std::string_view();
  constexpr char kVersion = 1;
  if (value.data.empty() || value.data.front() != kVersion) return std::nullopt;
  return value.data.substr(1);
}

std::optional<std::uint64_t> number(const Value& value) {
  if (value.data.size() != sizeof(std::uint64_t)) return std::nullopt;
  return postgres::ByteReader(value.data).int64();
}

}  // namespace

Result<void> EventReader::learn(const Relation& relation) {
  places_.erase(relation.oid);
  if (relation.schema != "pgstream") return {};
  if (relation.name != "events" && relation.name != "events_overflow") return {};
  std::array<std::size_t, kColumns> places{};
  for (std::size_t i = 0; i < kColumns; ++i) {
    const auto found = std::find_if(relation.columns.begin(), relation.columns.end(),
                                    [&](const auto& column) { return column.name == kNames[i]; });
    if (found == relation.columns.end()) {
      return fail(not_understood(relation, fmt::format("column {} is not sent", kNames[i])));
    }
    places[i] = static_cast<std::size_t>(found - relation.columns.begin());
  }
  places_.emplace(relation.oid, places);
  return {};
}

Result<std::optional<EventRow>> EventReader::read(const Insert& inserted) const {
  const auto found = places_.find(inserted.relation->oid);
  if (found == places_.end()) return std::nullopt;
  std::array<const Value*, kColumns> values{};
  for (std::size_t i = 0; i < kColumns; ++i) {
    if (found->second[i] >= inserted.row.size()) {
      return fail(not_understood(*inserted.relation, "a row lacks columns"));
    }
    values[i] = &inserted.row[found->second[i]];
    const bool may_be_null = i == 2;
    if (values[i]->kind != Value::Kind::binary &&
        !(may_be_null && values[i]->kind == Value::Kind::null)) {
      return fail(not_understood(*inserted.relation,
                                 fmt::format("column {} has no value in binary form", kNames[i])));
    }
  }
  const auto payload = json(*values[1]);
  const auto metadata = json(*values[2]);
  const auto created_at = number(*values[3]);
  const auto xid = number(*values[4]);
  const auto seq = number(*values[5]);
  if (values[0]->data.size() != 16 || !payload || !metadata || !created_at || !xid || !seq) {
    return fail(not_understood(*inserted.relation, "a value is of another type"));
  }
  EventRow row;
  row.id = values[0]->data;
  row.payload = *payload;
  row.metadata = *metadata;
  row.created_at =
      postgres::kEpoch + std::chrono::microseconds(static_cast<std::int64_t>(*created_at));
  row.xid = *xid;
  row.seq = static_cast<std::int64_t>(*seq);
  return row;
}

}  // namespace relay::stream
