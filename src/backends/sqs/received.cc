#include "backends/sqs/received.h"

#include <fmt/core.h>
#include <simdjson.h>

#include <charconv>
#include <optional>

#include "backends/sqs/entry.h"
#include "connector/content_type.h"
#include "connector/inbound_event.h"
#include "core/plausible_time.h"

namespace relay::sqs {

namespace {

using simdjson::dom::element;

constexpr std::string_view kIdAttribute = "pgtrickle-id";
constexpr std::string_view kTypeAttribute = "event_type";

std::string text_of(const element& object, std::string_view name) {
  std::string_view text;
  return object[name].get(text) ? std::string() : std::string(text);
}

void read_packed(std::string_view json, Received& message) {
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (parser.parse(json.data(), json.size()).get(object)) return;
  for (const auto [name, value] : object) {
    std::string_view text;
    if (!value.get(text)) message.attributes.emplace_back(name, text);
  }
}

void read_attributes(const element& entry, Received& message) {
  simdjson::dom::object attributes;
  if (entry["MessageAttributes"].get(attributes)) return;
  for (const auto [name, value] : attributes) {
    std::string text = text_of(value, "StringValue");
    if (text.empty()) {
      if (const std::string binary = text_of(value, "BinaryValue"); !binary.empty()) {
        text = "base64:" + binary;
      }
    }
    if (name == kOtherHeaders) {
      read_packed(text, message);
    } else {
      message.attributes.emplace_back(name, std::move(text));
    }
  }
}

Received read_message(const element& entry) {
  Received message;
  message.id = text_of(entry, "MessageId");
  message.receipt = text_of(entry, "ReceiptHandle");
  message.body = text_of(entry, "Body");
  element system;
  if (!entry["Attributes"].get(system)) {
    message.group = text_of(system, "MessageGroupId");
    message.deduplication_id = text_of(system, "MessageDeduplicationId");
    const std::string sent = text_of(system, "SentTimestamp");
    std::from_chars(sent.data(), sent.data() + sent.size(), message.sent_ms);
  }
  read_attributes(entry, message);
  return message;
}

}  // namespace

const std::string* Received::attribute(std::string_view name) const {
  for (const auto& [known, value] : attributes) {
    if (known == name) return &value;
  }
  return nullptr;
}

const std::string* Received::attribute_or_own(std::string_view name) const {
  if (const std::string* found = attribute(name)) return found;
  if (name == "MessageId") return &id;
  return name == "MessageDeduplicationId" ? &deduplication_id : nullptr;
}

Result<std::vector<Received>> parse_received(std::string_view body, std::string_view where) {
  // Emulators answer with nothing at all where there is nothing.
  if (body.empty()) return std::vector<Received>();
  simdjson::dom::parser parser;
  const auto parsed = parser.parse(body.data(), body.size());
  if (parsed.error() || !parsed.is_object()) {
    return fail(ErrorClass::transient, "bad_answer",
                fmt::format("{}: its answer is no JSON object", where),
                "look at endpoint: does SQS answer there?");
  }
  std::vector<Received> messages;
  simdjson::dom::array entries;
  if (parsed["Messages"].get(entries)) return messages;
  for (const auto entry : entries) messages.push_back(read_message(entry));
  return messages;
}

Record to_record(const Received& message, std::string_view queue, const EventRules& rules,
                 const FieldMapping& mapping, Arena& arena) {
  const MappedMessage mapped{.subject = queue,
                             .key = message.group,
                             .payload = message.body,
                             .header = [&](std::string_view name) -> std::optional<std::string> {
                               const std::string* value = message.attribute_or_own(name);
                               return value ? std::optional(*value) : std::nullopt;
                             }};
  InboundEvent event(mapping, mapped, arena);
  event.set_id(kIdAttribute, [&] { return rules.id_scope + message.id; });
  event.set_type(kTypeAttribute, [&] { return queue; });
  event.set_payload(message.body, content_type_in(message.attributes));
  event.limit_payload(rules.max_record_bytes,
                      [&] { return fmt::format("message {} of {}", message.id, queue); });
  event.set_created_at(plausible_time(std::chrono::milliseconds(message.sent_ms)));
  for (const auto& [name, value] : message.attributes) event.add_header(name, value);
  return std::move(event).record();
}

}  // namespace relay::sqs
