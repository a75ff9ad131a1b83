#include "backends/nats/event.h"

#include <fmt/core.h>
#include <nats/nats.h>

#include <chrono>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "connector/content_type.h"
#include "connector/header_object.h"
#include "connector/inbound_event.h"
#include "connector/source_id.h"

namespace relay::nats {

namespace {

constexpr std::string_view kIdHeader = "pgtrickle-id";

std::optional<std::string> header(natsMsg* message, std::string_view name) {
  const char* value = nullptr;
  if (natsMsgHeader_Get(message, std::string(name).c_str(), &value) != NATS_OK ||
      value == nullptr || *value == '\0') {
    return std::nullopt;
  }
  return as_text(value);
}

std::string made_up_id(natsMsg* message, const AckSubject& place, std::int64_t stream_created_ns,
                       const EventRules& rules) {
  std::string id =
      fmt::format("{}{}:{}:", rules.id_scope, id_part(place.stream), stream_created_ns);
  if (const auto given = header(message, "Nats-Msg-Id")) return id + "id:" + *given;
  return id + std::to_string(place.sequence);
}

/// Adds all headers. Returns the content type; empty where no header says it.
std::string add_headers(natsMsg* message, InboundEvent& event) {
  std::string content_type;
  const char** names = nullptr;
  int count = 0;
  if (natsMsgHeader_Keys(message, &names, &count) != NATS_OK) count = 0;
  for (int i = 0; i < count; ++i) {
    const char* value = nullptr;
    if (natsMsgHeader_Get(message, names[i], &value) == NATS_OK && value != nullptr) {
      event.add_header(names[i], value);
      if (names_content_type(names[i])) content_type = as_text(value);
    }
  }
  std::free(names);  // the library's array; what it points to is the message's
  return content_type;
}

}  // namespace

Record to_record(natsMsg* message, const AckSubject& place, std::int64_t stream_created_ns,
                 const EventRules& rules, const FieldMapping& mapping, Arena& arena) {
  const std::string_view subject = natsMsg_GetSubject(message);
  const std::string_view payload(natsMsg_GetData(message),
                                 static_cast<std::size_t>(natsMsg_GetDataLength(message)));
  const MappedMessage mapped{
      .subject = subject, .key = {}, .payload = payload, .header = [&](std::string_view name) {
        return header(message, name);
      }};
  InboundEvent event(mapping, mapped, arena);
  event.set_id(kIdHeader, [&] { return made_up_id(message, place, stream_created_ns, rules); });
  event.set_type({}, [&] { return subject; });
  event.set_payload(payload, add_headers(message, event));
  event.limit_payload(rules.max_record_bytes, [&] {
    return fmt::format("the message {} of stream '{}' on '{}'", place.sequence, place.stream,
                       subject);
  });
  event.set_created_at(Timestamp(std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::nanoseconds(place.time_ns))));
  return std::move(event).record();
}

}  // namespace relay::nats
