#include "backends/kafka/event.h"

#include <fmt/core.h>

#include <algorithm>

#include "connector/content_type.h"
#include "connector/header_object.h"
#include "connector/source_id.h"
#include "connector/too_large.h"
#include "core/plausible_time.h"

namespace relay::kafka {

namespace {

constexpr std::string_view kIdHeader = "pgtrickle-id";
constexpr std::string_view kTypeHeader = "event-type";
/// The value of a record without one: a tombstone.
constexpr std::string_view kNoValue = "null";

std::optional<std::string_view> header(const Consumed& consumed, std::string_view name) {
  std::optional<std::string_view> found;
  for (const auto& [known, value] : consumed.headers) {
    if (known == name) found = value;
  }
  return found;
}

/// What tells this record from every other one there will ever be: a topic that is made again
/// starts at offset 0 again. Names of topics hold no colon.
std::string made_up_id(const Consumed& consumed, const EventRules& rules) {
  return fmt::format("{}{}:{}:{}:{}:{}", rules.id_scope, id_part(rules.cluster), consumed.topic,
                     consumed.partition, consumed.offset, consumed.timestamp_ms);
}

/// Empty where no header says it.
std::string content_type_of(const Consumed& consumed) {
  const auto found =
      std::find_if(consumed.headers.begin(), consumed.headers.end(),
                   [](const auto& header) { return names_content_type(header.first); });
  return found == consumed.headers.end() ? std::string() : as_text(found->second);
}

std::string headers_json(const Consumed& consumed, const std::optional<std::string>& trace) {
  HeaderObject headers;
  for (const auto& [name, value] : consumed.headers) headers.add(name, value);
  if (trace) headers.add("trace_id", *trace);
  return headers.json();
}

}  // namespace

Record to_record(const Consumed& consumed, const EventRules& rules, const FieldMapping& mapping,
                 Arena& arena) {
  const std::string key = consumed.key ? as_text(*consumed.key) : std::string();
  const MappedMessage message{.subject = consumed.topic,
                              .key = key,
                              .payload = consumed.value.value_or(std::string_view()),
                              .header = [&](std::string_view name) -> std::optional<std::string> {
                                const auto found = header(consumed, name);
                                return found ? std::optional(as_text(*found)) : std::nullopt;
                              }};
  const auto text_header = [&](std::string_view name) {
    const auto found = header(consumed, name);
    return found && !found->empty() ? std::optional(as_text(*found)) : std::nullopt;
  };

  Event event;
  auto id = mapping.id(message);
  if (!id) id = text_header(kIdHeader);
  event.id = arena.copy(id ? *id : made_up_id(consumed, rules));
  auto type = mapping.event_type(message);
  if (!type) type = text_header(kTypeHeader);
  event.type = arena.copy(type ? *type : std::string(consumed.topic));
  event.key = arena.copy(mapping.aggregate_id(message).value_or(key));
  event.payload = arena.copy(consumed.value.value_or(kNoValue));
  if (consumed.value) event.content_type = arena.copy(content_type_of(consumed));

  Record record;
  record.created_at = plausible_time(std::chrono::milliseconds(consumed.timestamp_ms));
  record.headers = arena.copy(headers_json(consumed, mapping.trace_id(message)));
  record.content = event;
  if (consumed.value && consumed.value->size() > static_cast<std::size_t>(rules.max_record_bytes)) {
    record.refused = too_large(fmt::format("the record at offset {} of partition {} of topic '{}'",
                                           consumed.offset, consumed.partition, consumed.topic),
                               consumed.value->size(), rules.max_record_bytes);
  }
  return record;
}

}  // namespace relay::kafka
