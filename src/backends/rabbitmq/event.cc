#include "backends/rabbitmq/event.h"

#include <fmt/core.h>

#include <optional>

#include "connector/header_object.h"
#include "connector/too_large.h"
#include "core/plausible_time.h"

namespace relay::rabbitmq {

namespace {

constexpr std::string_view kIdHeader = "pgtrickle-id";
constexpr std::string_view kIdProperty = "message-id";

std::optional<std::string_view> header(const Delivered& message, std::string_view name) {
  for (const auto& [known, value] : message.headers) {
    if (known == name) return value;
  }
  return std::nullopt;
}

/// A header; else the property message-id, by that name.
std::optional<std::string_view> header_or_property(const Delivered& message,
                                                   std::string_view name) {
  if (const auto found = header(message, name)) return found;
  return name == kIdProperty ? std::optional<std::string_view>(message.message_id) : std::nullopt;
}

/// Empty: the message has none.
std::string own_id(const Delivered& message, const EventRules& rules) {
  const auto carried = header(message, kIdHeader);
  if (carried && !carried->empty()) return as_text(*carried);
  return message.message_id.empty() ? std::string() : rules.id_scope + as_text(message.message_id);
}

std::string headers_json(const Delivered& message, const std::optional<std::string>& trace) {
  HeaderObject headers;
  for (const auto& [name, value] : message.headers) headers.add(name, value);
  if (trace) headers.add("trace_id", *trace);
  return headers.json();
}

}  // namespace

Record to_record(const Delivered& message, const EventRules& rules, const FieldMapping& mapping,
                 Arena& arena) {
  const MappedMessage mapped{.subject = message.routing_key,
                             .key = {},
                             .payload = message.body,
                             .header = [&](std::string_view name) -> std::optional<std::string> {
                               const auto found = header_or_property(message, name);
                               return found ? std::optional(as_text(*found)) : std::nullopt;
                             }};
  Event event;
  event.id = arena.copy(mapping.id(mapped).value_or(own_id(message, rules)));
  event.type = arena.copy(mapping.event_type(mapped).value_or(as_text(message.routing_key)));
  event.key = arena.copy(mapping.aggregate_id(mapped).value_or(std::string()));
  event.payload = arena.copy(message.body);
  event.content_type = arena.copy(as_text(message.content_type));

  Record record;
  record.created_at = plausible_time(std::chrono::seconds(message.timestamp));
  record.headers = arena.copy(headers_json(message, mapping.trace_id(mapped)));
  record.content = event;
  if (message.body.size() > static_cast<std::size_t>(rules.max_record_bytes)) {
    record.refused =
        too_large(fmt::format("a message with the routing key '{}'", message.routing_key),
                  message.body.size(), rules.max_record_bytes);
  }
  return record;
}

}  // namespace relay::rabbitmq
