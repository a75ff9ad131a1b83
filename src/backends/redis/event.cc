#include "backends/redis/event.h"

#include <fmt/core.h>

#include <optional>

#include "backends/redis/entry_id.h"
#include "connector/content_type.h"
#include "connector/header_object.h"
#include "connector/source_id.h"
#include "connector/too_large.h"
#include "core/plausible_time.h"
#include "core/text.h"

namespace relay::redis {

namespace {

constexpr std::string_view kIdField = "pgtrickle_id";
constexpr std::string_view kTypeField = "event_type";
constexpr std::string_view kContentTypeField = "content_type";

std::optional<std::string_view> field(const Entry& entry, std::string_view name) {
  for (const auto& [known, value] : entry.fields) {
    if (known == name) return value;
  }
  return std::nullopt;
}

std::optional<std::string> text_field(const Entry& entry, std::string_view name) {
  const auto found = field(entry, name);
  return found && !found->empty() ? std::optional(as_text(*found)) : std::nullopt;
}

/// Of an entry without a payload: what describes it, and is no part of the event.
bool is_about(std::string_view name) {
  return name.starts_with("pgtrickle_") || name == kTypeField || name == kContentTypeField;
}

std::string object_of_fields(const Entry& entry) {
  std::string json = "{";
  for (const auto& [name, value] : entry.fields) {
    if (is_about(name)) continue;
    if (json.size() > 1) json.push_back(',');
    append_json_string(json, as_text(name));
    json.push_back(':');
    append_json_string(json, as_text(value));
  }
  json.push_back('}');
  return json;
}

/// Empty where no field says it.
std::string content_type_of(const Entry& entry) {
  for (const auto& [name, value] : entry.fields) {
    if (names_content_type(name)) return as_text(value);
  }
  return {};
}

std::string headers_json(const Entry& entry, const EventRules& rules, bool has_payload,
                         const std::optional<std::string>& trace) {
  HeaderObject headers;
  for (const auto& [name, value] : entry.fields) {
    if (has_payload ? name != rules.payload_field : is_about(name)) headers.add(name, value);
  }
  if (trace) headers.add("trace_id", *trace);
  return headers.json();
}

}  // namespace

Record to_record(const Entry& entry, const EventRules& rules, const FieldMapping& mapping,
                 Arena& arena) {
  const auto given = field(entry, rules.payload_field);
  const std::string made = given ? std::string() : object_of_fields(entry);
  const std::string_view payload = given.value_or(made);
  const MappedMessage message{.subject = entry.stream_key,
                              .key = {},
                              .payload = payload,
                              .header = [&](std::string_view name) -> std::optional<std::string> {
                                const auto found = field(entry, name);
                                return found ? std::optional(as_text(*found)) : std::nullopt;
                              }};
  Event event;
  auto id = mapping.id(message);
  if (!id) id = text_field(entry, kIdField);
  if (!id) {
    id = fmt::format("{}{}:{}{}{}", rules.id_scope, id_part(as_text(entry.stream_key)),
                     entry.incarnation, entry.incarnation.empty() ? "" : ":", entry.id);
  }
  event.id = arena.copy(*id);
  auto type = mapping.event_type(message);
  if (!type) type = text_field(entry, kTypeField);
  event.type = arena.copy(type ? *type : as_text(entry.stream_key));
  event.key = arena.copy(mapping.aggregate_id(message).value_or(std::string()));
  event.payload = arena.copy(payload);
  // An object that was made of the fields is JSON, whatever a field says.
  if (given) event.content_type = arena.copy(content_type_of(entry));

  Record record;
  if (const auto parsed = parse_entry_id(entry.id)) {
    record.created_at = plausible_time(std::chrono::milliseconds(parsed->time));
  }
  record.headers =
      arena.copy(headers_json(entry, rules, given.has_value(), mapping.trace_id(message)));
  record.content = event;
  if (payload.size() > static_cast<std::size_t>(rules.max_record_bytes)) {
    record.refused = too_large(fmt::format("the entry {} of '{}'", entry.id, entry.stream_key),
                               payload.size(), rules.max_record_bytes);
  }
  return record;
}

}  // namespace relay::redis
