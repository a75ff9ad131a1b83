#include "backends/pg_inbox/row_values.h"

#include <strings.h>

#include <algorithm>
#include <array>

#include "backends/pg_inbox/jsonb_text.h"
#include "core/digest.h"
#include "core/text.h"

namespace relay::pg_inbox {

namespace {

constexpr std::array<std::string_view, 8> kNames = {"event_id",     "event_type", "source",
                                                    "aggregate_id", "payload",    "headers",
                                                    "trace_id",     "subject"};

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

std::string hexadecimal(std::string_view bytes) {
  return "\\x" + hex(bytes);
}

void add_text(BinaryArray& column, std::string_view value) {
  if (value.empty()) {
    column.add_null();
  } else if (text_takes(value)) {
    column.add(value);
  } else {
    column.add(hexadecimal(value));
  }
}

void add_payload(BinaryArray& column, ColumnKind kind, const Message& message, bool raw) {
  if (message.tombstone) {
    column.add_null();
  } else if (kind == ColumnKind::bytes) {
    column.add(message.body);
  } else if (!raw &&
             (kind == ColumnKind::json ? jsonb_takes(message.body) : text_takes(message.body))) {
    column.add(message.body);
  } else {
    column.add(raw_payload(message.body, message.content_type));
  }
}

}  // namespace

std::optional<InboxField> find_field(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) return std::nullopt;
  return static_cast<InboxField>(found - kNames.begin());
}

std::string_view to_string(InboxField field) {
  return kNames[static_cast<std::size_t>(field)];
}

std::vector<std::string_view> field_names() {
  return {kNames.begin(), kNames.end()};
}

void add_value(BinaryArray& column, InboxField field, ColumnKind kind, const Message& message,
               std::string_view pipeline, bool raw) {
  switch (field) {
    case InboxField::event_id:
      return column.add(message.id);
    case InboxField::event_type:
      return add_text(column, message.op);
    case InboxField::source:
      return add_text(column, pipeline);
    case InboxField::aggregate_id:
      return add_text(column, message.key);
    case InboxField::payload:
      return add_payload(column, kind, message, raw);
    case InboxField::headers: {
      const std::string json = headers_json(message);
      return json.empty() ? column.add_null() : column.add(json);
    }
    case InboxField::trace_id:
      return add_text(column, trace_id_of(message));
    case InboxField::subject:
      return add_text(column, message.subject);
  }
}

std::string headers_json(const Message& message) {
  std::string json;
  for_each_header(message, [&](std::string_view name, std::string_view value) {
    if (value.data() == message.id.data() && name == "pgtrickle-id") return;
    if (value.data() == message.op.data() && name == "pgtrickle-op") return;
    json += json.empty() ? '{' : ',';
    append_json_string(json, text_takes(name) ? std::string(name) : hexadecimal(name));
    json += ':';
    if (text_takes(value)) {
      append_json_string(json, value);
    } else {
      append_json_string(json, hexadecimal(value));
    }
  });
  if (!json.empty()) json += '}';
  return json;
}

std::string_view trace_id_of(const Message& message) {
  std::string_view traceparent;
  for (const Header& header : message.headers) {
    if (same_name(header.name, "trace_id")) return header.value;
    if (same_name(header.name, "traceparent")) traceparent = header.value;
  }
  // version-traceid-parentid-flags: https://www.w3.org/TR/trace-context/#traceparent-header
  if (traceparent.size() < 55 || traceparent[2] != '-' || traceparent[35] != '-') return {};
  return traceparent.substr(3, 32);
}

}  // namespace relay::pg_inbox
