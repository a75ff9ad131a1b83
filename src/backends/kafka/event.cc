#include "backends/kafka/event.h"

#include <fmt/core.h>

#include "connector/content_type.h"
#include "connector/header_object.h"
#include "connector/inbound_event.h"
#include "connector/source_id.h"
#include "core/plausible_time.h"

namespace relay::kafka {

namespace {

constexpr std::string_view kIdHeader = "pgtrickle-id";
constexpr std::string_view kTypeHeader = "event-type";
/// The value of a record without one: a tombstone.
constexpr std::string_view kNoValue = "null";
constexpr std::string_view kJson = "application/json";

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
  InboundEvent event(mapping, message, arena);
  event.set_id(kIdHeader, [&] { return made_up_id(consumed, rules); });
  event.set_type(kTypeHeader, [&] { return consumed.topic; });
  if (consumed.value) {
    event.set_payload(*consumed.value, as_text(content_type_in(consumed.headers)));
    event.limit_payload(rules.max_record_bytes, [&] {
      return fmt::format("the record at offset {} of partition {} of topic '{}'", consumed.offset,
                         consumed.partition, consumed.topic);
    });
  } else {
    event.set_payload(kNoValue, kJson);
  }
  event.set_created_at(plausible_time(std::chrono::milliseconds(consumed.timestamp_ms)));
  for (const auto& [name, value] : consumed.headers) event.add_header(name, value);
  return std::move(event).record();
}

}  // namespace relay::kafka
