#include "stream/event_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace relay::stream {

using postgres::pgoutput::Insert;
using postgres::pgoutput::Relation;
using postgres::pgoutput::Value;

namespace {

Error not_understood(const Relation& relation, std::string_view what) {
  return misconfigured("stream_events",
                       fmt::format("{}.{}: {}", relation.schema, relation.name, what),
                       "let the daemon make its publication anew: DROP PUBLICATION, then start it");
}

}  // namespace

Result<void> EventReader::learn(const Relation& relation) {
  places_.erase(relation.oid);
  if (relation.schema != "pgstream") return {};
  if (relation.name != "events" && relation.name != "events_overflow") return {};
  Places places{};
  for (std::size_t i = 0; i < places.size(); ++i) {
    const auto found =
        std::find_if(relation.columns.begin(), relation.columns.end(),
                     [&](const auto& column) { return column.name == kEventColumns[i]; });
    if (found == relation.columns.end()) {
      return fail(not_understood(relation, fmt::format("column {} is not sent", kEventColumns[i])));
    }
    places[i] = static_cast<std::size_t>(found - relation.columns.begin());
  }
  places_.emplace(relation.oid, places);
  return {};
}

Result<std::optional<EventRow>> EventReader::read(const Insert& inserted) const {
  const auto found = places_.find(inserted.relation->oid);
  if (found == places_.end()) return std::nullopt;
  EventValues values;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t place = found->second[i];
    if (place >= inserted.row.size()) {
      return fail(not_understood(*inserted.relation, "a row lacks columns"));
    }
    const Value& value = inserted.row[place];
    if (value.kind == Value::Kind::binary) values[i] = value.data;
  }
  auto row = event_of(values);
  if (!row) return fail(not_understood(*inserted.relation, "a row has values of another form"));
  return row;
}

}  // namespace relay::stream
