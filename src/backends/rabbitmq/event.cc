#include "backends/rabbitmq/event.h"

#include <fmt/core.h>

#include <optional>

#include "connector/header_object.h"
#include "connector/inbound_event.h"
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

/// Empty: the publisher gave none.
std::string publishers_id(const Delivered& message, const EventRules& rules) {
  return message.message_id.empty() ? std::string() : rules.id_scope + as_text(message.message_id);
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
  InboundEvent event(mapping, mapped, arena);
  event.set_id(kIdHeader, [&] { return publishers_id(message, rules); });
  event.set_type({}, [&] { return as_text(message.routing_key); });
  event.set_payload(message.body, as_text(message.content_type));
  event.limit_payload(rules.max_record_bytes, [&] {
    return fmt::format("a message with the routing key '{}'", message.routing_key);
  });
  event.set_created_at(plausible_time(std::chrono::seconds(message.timestamp)));
  for (const auto& [name, value] : message.headers) event.add_header(name, value);
  return std::move(event).record();
}

}  // namespace relay::rabbitmq
