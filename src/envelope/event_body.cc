#include "envelope/event_body.h"

#include "core/base64.h"
#include "core/text.h"

namespace relay::envelope {
namespace {

void append_text_or_null(std::string& out, std::string_view text) {
  if (text.empty()) {
    out.append("null");
  } else {
    append_json_string(out, text);
  }
}

}  // namespace

bool is_json_type(std::string_view content_type) {
  return content_type.empty() || content_type.starts_with("application/json") ||
         content_type.find("+json") != std::string_view::npos;
}

void append_event_envelope(std::string& out, std::string_view id, const Event& event, bool json) {
  out.append("{\"id\":");
  append_json_string(out, id);
  out.append(",\"type\":");
  append_text_or_null(out, event.type);
  out.append(",\"key\":");
  append_text_or_null(out, event.key);
  out.append(",\"payload\":");
  if (json) {
    out.append(event.payload);
  } else {
    out.append("{\"raw_base64\":\"");
    append_base64(out, event.payload);
    out.append("\",\"content_type\":");
    append_json_string(out, event.content_type.empty() ? kBytesType : event.content_type);
    out.push_back('}');
  }
  out.push_back('}');
}

}  // namespace relay::envelope
