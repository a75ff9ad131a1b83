#include "backends/redis/event.h"

#include <fmt/core.h>

#include <optional>

#include "backends/redis/entry_id.h"
#include "connector/content_type.h"
#include "connector/header_object.h"
#include "connector/inbound_event.h"
#include "connector/source_id.h"
#include "core/plausible_time.h"
#include "core/text.h"

namespace relay::redis {

namespace {

constexpr std::string_view kIdField = "pgtrickle_id";
constexpr std::string_view kTypeField = "event_type";
constexpr std::string_view kContentTypeField = "content_type";
constexpr std::string_view kJson = "application/json";

std::optional<std::string_view> field(const Entry& entry, std::string_view name) {
  for (const auto& [known, value] : entry.fields) {
    if (known == name) return value;
  }
  return std::nullopt;
}

/// Whether a field of an entry without a payload describes the entry, and is no part of the event.
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

std::string made_up_id(const Entry& entry, const EventRules& rules) {
  return fmt::format("{}{}:{}{}{}", rules.id_scope, id_part(as_text(entry.stream_key)),
                     entry.incarnation, entry.incarnation.empty() ? "" : ":", entry.id);
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
  InboundEvent event(mapping, message, arena);
  event.set_id(kIdField, [&] { return made_up_id(entry, rules); });
  event.set_type(kTypeField, [&] { return as_text(entry.stream_key); });
  if (given) {
    event.set_payload(payload, as_text(content_type_in(entry.fields)));
  } else {
    event.set_payload(payload, kJson);  // it was made of the fields, whatever they say
  }
  event.limit_payload(rules.max_record_bytes, [&] {
    return fmt::format("the entry {} of '{}'", entry.id, entry.stream_key);
  });
  if (const auto parsed = parse_entry_id(entry.id)) {
    event.set_created_at(plausible_time(std::chrono::milliseconds(parsed->time)));
  }
  for (const auto& [name, value] : entry.fields) {
    if (given ? name != rules.payload_field : is_about(name)) event.add_header(name, value);
  }
  return std::move(event).record();
}

}  // namespace relay::redis
