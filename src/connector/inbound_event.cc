#include "connector/inbound_event.h"

#include "connector/too_large.h"

namespace relay {

InboundEvent::InboundEvent(const FieldMapping& mapping, const MappedMessage& message, Arena& arena)
    : mapping_(mapping),
      message_(message),
      arena_(arena),
      event_(record_.content.emplace<Event>()) {
  const auto key = mapping.aggregate_id(message);
  event_.key = key ? arena.copy(*key) : arena.copy(message.key);
}

std::optional<std::string> InboundEvent::carried(std::string_view header) const {
  if (header.empty() || !message_.header) return std::nullopt;
  auto found = message_.header(header);
  return found && !found->empty() ? std::move(found) : std::nullopt;
}

void InboundEvent::set_payload(std::string_view payload, std::string_view content_type) {
  set_payload_in_arena(arena_.copy(payload), content_type);
}

void InboundEvent::set_payload_in_arena(std::string_view payload, std::string_view content_type) {
  event_.payload = payload;
  event_.content_type = arena_.copy(content_type);
}

void InboundEvent::refuse(std::string_view what, std::int64_t max_record_bytes) {
  record_.refused = too_large(what, event_.payload.size(), max_record_bytes);
}

Record InboundEvent::record() && {
  const auto trace = mapping_.trace_id(message_);
  if (trace) headers_.add("trace_id", *trace);
  record_.headers = arena_.copy(headers_.json());
  return std::move(record_);
}

}  // namespace relay
