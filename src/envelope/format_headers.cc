#include "envelope/format_headers.h"

#include <algorithm>
#include <cstddef>

#include "core/percent.h"
#include "core/text.h"

namespace relay::envelope {
namespace {

// https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
// section 3.1.3.2: blank, quote, percent sign and all that is not printable ASCII.
void append_header_value(std::string& out, std::string_view text) {
  for (const char c : text) {
    if (c > 0x20 && c < 0x7f && c != '"' && c != '%') {
      out.push_back(c);
    } else {
      append_percent_escape(out, c);
    }
  }
}

}  // namespace

bool FormatHeaders::is_configured(std::string_view name) const {
  return std::any_of(plan_.headers.begin(), plan_.headers.end(),
                     [&](const auto& set) { return equal_ignoring_case(set.name, name); });
}

void FormatHeaders::add(std::string_view name, std::string_view value, Output& output) {
  if (!is_configured(name)) headers_.push_back({output.keep(name), output.keep(value)});
}

std::span<const Header> FormatHeaders::build(const MessageFacts& message,
                                             std::string_view content_type, Output& output) {
  const CloudEventsBinding& binding = plan_.options.cloudevents_binding;
  headers_.clear();
  if (!binding.content_type_header.empty() && !content_type.empty()) {
    add(binding.content_type_header, content_type, output);
  }
  plan_.format->headers(message, content_type, [&](std::string_view name, std::string_view value) {
    text_.assign(binding.prefix).append(name);
    const std::size_t name_end = text_.size();
    if (binding.percent_encoded) {
      append_header_value(text_, value);
    } else {
      text_.append(value);
    }
    add(std::string_view(text_).substr(0, name_end), std::string_view(text_).substr(name_end),
        output);
  });
  const std::size_t own = headers_.size();
  for (const Header& header : message.headers) {
    const auto end = headers_.begin() + static_cast<std::ptrdiff_t>(own);
    const bool taken = std::any_of(headers_.begin(), end, [&](const Header& made) {
      return equal_ignoring_case(made.name, header.name);
    });
    if (!taken) headers_.push_back(header);
  }
  return output.keep(headers_);
}

}  // namespace relay::envelope
