#pragma once

#include <string>
#include <string_view>

#include "core/record.h"

namespace relay::envelope {

/// Whether a content type means JSON. An empty one does.
bool is_json_type(std::string_view content_type);

/// The content type of bytes that are not JSON, if the source does not give one.
inline constexpr std::string_view kBytesType = "application/octet-stream";

/// {"id","type","key","payload"}: an event for brokers without headers. `json`: the payload is one
/// well-formed JSON value; else it goes as base64, with its content type beside it.
void append_event_envelope(std::string& out, std::string_view id, const Event& event, bool json);

}  // namespace relay::envelope
