// CloudEvents 1.0: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
// Structured: the JSON event format as body. Binary: attributes in headers, the data as body. Data
// is the relay's own envelope of the change, or an event's payload as it is.

#include <string>
#include <string_view>

#include "core/base64.h"
#include "core/text.h"
#include "envelope/event_body.h"
#include "envelope/format.h"

namespace relay::envelope {
namespace {

constexpr std::string_view kEventType = "application/cloudevents+json";
constexpr std::string_view kAnyEventType = "application/cloudevents";
constexpr std::string_view kDataType = "application/json";

bool has_control(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool c1 =
        byte == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (byte < 0x20 || byte == 0x7f || c1) return true;
  }
  return false;
}

// Attributes must not hold control characters: each becomes a blank.
std::string cleaned(std::string_view text) {
  std::string clean;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view one = text.substr(i, 1);
    const std::string_view two = text.substr(i, 2);
    if (has_control(one)) {
      clean.push_back(' ');
    } else if (has_control(two) && !has_control(two.substr(1))) {
      clean.push_back(' ');
      ++i;
    } else {
      clean.append(one);
    }
  }
  return clean;
}

std::string_view header(const MessageFacts& message, std::string_view name) {
  for (const Header& one : message.headers) {
    if (one.name == name) return one.value;
  }
  return {};
}

/// Calls `add(name, value)` for each context attribute but datacontenttype.
template <class Add>
void for_each_attribute(const MessageFacts& message, const Add& add) {
  const auto add_text = [&](std::string_view name, std::string_view value) {
    if (value.empty()) return;
    has_control(value) ? add(name, std::string_view(cleaned(value))) : add(name, value);
  };
  add("specversion", "1.0");
  add_text("id", message.id);
  add_text("source", message.record.event_source);
  std::string type(message.is_event ? "" : "pgtrickle.");
  type.append(message.type);
  add_text("type", type.empty() ? std::string_view("pgtrickle.event") : type);
  add_text("subject", message.key);
  if (message.record.at != Timestamp{}) add("time", format_timestamp(message.record.at));
  add_text("partitionkey", message.key);
  if (message.record.shape != nullptr) {
    add_text("streamtable", message.record.shape->name);
    add_text("streamschema", message.record.shape->schema);
  }
  for (const std::string_view name : {"traceparent", "tracestate"}) {
    add_text(name, header(message, name));
  }
}

void append_attributes(std::string& out, const MessageFacts& message, std::string_view data_type) {
  out.push_back('{');
  for_each_attribute(message, [&](std::string_view name, std::string_view value) {
    if (out.back() != '{') out.push_back(',');
    append_json_string(out, name);
    out.push_back(':');
    append_json_string(out, value);
  });
  out.append(",\"datacontenttype\":");
  append_json_string(out, data_type);
}

void append_delta(std::string& out, const DeltaFacts& delta) {
  append_attributes(out, delta.message, kDataType);
  out.append(",\"data\":");
  kNativeFormat.delta(out, delta);
  out.push_back('}');
}

void append_row(std::string& out, const RowFacts& row) {
  append_attributes(out, row.message, kDataType);
  out.append(",\"data\":");
  kNativeFormat.row(out, row);
  out.push_back('}');
}

bool append_event(std::string& out, const EventFacts& facts) {
  const Event& event = facts.event;
  if (event.content_type.starts_with(kAnyEventType)) return false;  // it is one already
  const std::string_view unknown = facts.json ? kDataType : kBytesType;
  append_attributes(out, facts.message, event.content_type.empty() ? unknown : event.content_type);
  if (facts.json) {
    out.append(",\"data\":").append(event.payload).push_back('}');
  } else {
    out.append(",\"data_base64\":\"");
    append_base64(out, event.payload);
    out.append("\"}");
  }
  return true;
}

void no_headers(const MessageFacts&, std::string_view, const HeaderAdder&) {}

void native_delta(std::string& out, const DeltaFacts& delta) {
  kNativeFormat.delta(out, delta);
}

void native_row(std::string& out, const RowFacts& row) {
  kNativeFormat.row(out, row);
}

void attribute_headers(const MessageFacts& message, std::string_view content_type,
                       const HeaderAdder& add) {
  if (content_type.starts_with(kAnyEventType)) return;
  for_each_attribute(message, add);
}

}  // namespace

constinit const Format kCloudEventsFormat = {.name = "cloudevents",
                                             .content_type = kEventType,
                                             .delta = append_delta,
                                             .row = append_row,
                                             .event = append_event,
                                             .headers = no_headers,
                                             .key_is_object = false};

constinit const Format kCloudEventsBinaryFormat = {.name = "cloudevents",
                                                   .content_type = kDataType,
                                                   .delta = native_delta,
                                                   .row = native_row,
                                                   .event = nullptr,
                                                   .headers = attribute_headers,
                                                   .key_is_object = false};

}  // namespace relay::envelope
