#include "backends/file/format.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "core/text.h"

namespace relay::file {

namespace {

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool has_line_break(std::string_view text) {
  return std::memchr(text.data(), '\n', text.size()) != nullptr ||
         std::memchr(text.data(), '\r', text.size()) != nullptr;
}

bool is_json(std::string_view content_type) {
  return content_type.empty() || content_type.find("json") != std::string_view::npos;
}

bool is_utf8(std::string_view text) {
  const auto* byte = reinterpret_cast<const unsigned char*>(text.data());
  const auto* const end = byte + text.size();
  while (byte < end) {
    const unsigned char lead = *byte++;
    if (lead < 0x80) continue;
    const int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || end - byte < more) return false;
    // The second byte's range keeps out overlong forms, surrogates and what is beyond U+10FFFF.
    const unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (*byte < low || *byte > high) return false;
    for (int i = 1; i < more; ++i) {
      if ((byte[i] & 0xc0) != 0x80) return false;
    }
    byte += more;
  }
  return true;
}

/// The end of the JSON string that begins at `at` (a quote), behind its closing quote.
std::size_t end_of_string(std::string_view json, std::size_t at) {
  for (++at; at < json.size(); ++at) {
    if (json[at] == '\\') {
      ++at;
    } else if (json[at] == '"') {
      return at + 1;
    }
  }
  return json.size();
}

void append_compact(std::string& out, std::string_view json) {
  for (std::size_t at = 0; at < json.size();) {
    if (json[at] == '"') {
      const std::size_t end = end_of_string(json, at);
      out.append(json.substr(at, end - at));
      at = end;
    } else {
      if (!is_space(json[at])) out.push_back(json[at]);
      ++at;
    }
  }
}

void append_indent(std::string& out, int depth) {
  out.push_back('\n');
  out.append(static_cast<std::size_t>(std::max(depth, 0)) * 2, ' ');
}

std::size_t skip_space(std::string_view json, std::size_t at) {
  while (at < json.size() && is_space(json[at])) ++at;
  return at;
}

void append_pretty(std::string& out, std::string_view json) {
  int depth = 0;
  for (std::size_t at = skip_space(json, 0); at < json.size(); at = skip_space(json, at)) {
    const char c = json[at];
    if (c == '"') {
      const std::size_t end = end_of_string(json, at);
      out.append(json.substr(at, end - at));
      at = end;
      continue;
    }
    ++at;
    if (c == '{' || c == '[') {
      out.push_back(c);
      const std::size_t next = skip_space(json, at);
      if (next < json.size() && (json[next] == '}' || json[next] == ']')) {
        out.push_back(json[next]);
        at = next + 1;
      } else {
        append_indent(out, ++depth);
      }
    } else if (c == '}' || c == ']') {
      append_indent(out, --depth);
      out.push_back(c);
    } else if (c == ',') {
      out.push_back(c);
      append_indent(out, depth);
    } else if (c == ':') {
      out.append(": ");
    } else {
      out.push_back(c);
    }
  }
}

Result<void> append_body(std::string& out, Format format, const Message& message) {
  if (!is_json(message.content_type)) {
    if (!is_utf8(message.body)) {
      return fail(ErrorClass::rejected, "not_text",
                  fmt::format("a line of JSON cannot hold the body of message {}: it is {} and not "
                              "UTF-8 text",
                              message.id, message.content_type),
                  "send such messages to another kind of sink");
    }
    append_json_string(out, message.body);
  } else if (format == Format::json_pretty) {
    append_pretty(out, message.body);
  } else if (has_line_break(message.body)) {
    append_compact(out, message.body);
  } else {
    out.append(message.body);
  }
  return {};
}

void append_csv_field(std::string& out, std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) {
    out.append(text);
    return;
  }
  out.push_back('"');
  for (const char c : text) {
    if (c == '"') out.push_back('"');
    out.push_back(c);
  }
  out.push_back('"');
}

Result<void> append_csv(std::string& out, const Message& message) {
  for (const std::string_view value :
       {message.id, message.subject, message.key, message.op, message.body}) {
    if (value.find('\0') != std::string_view::npos) {
      return fail(ErrorClass::rejected, "csv_value",
                  fmt::format("CSV cannot hold message {}: it contains a NUL byte", message.id),
                  "use format jsonl");
    }
  }
  for (const std::string_view value : {message.id, message.subject, message.key, message.op}) {
    append_csv_field(out, value);
    out.push_back(',');
  }
  if (message.created_at != Timestamp{}) append_timestamp(out, message.created_at);
  out.push_back(',');
  if (is_json(message.content_type) && has_line_break(message.body)) {
    std::string body;
    append_compact(body, message.body);
    append_csv_field(out, body);
  } else {
    append_csv_field(out, message.body);
  }
  return {};
}

}  // namespace

Result<void> append_message(std::string& out, Format format, const Message& message) {
  auto appended =
      format == Format::csv ? append_csv(out, message) : append_body(out, format, message);
  if (appended) out.push_back('\n');
  return appended;
}

std::string_view header_of(Format format) {
  return format == Format::csv ? "id,subject,key,op,created_at,body\n" : "";
}

void WholeMessages::feed(std::string_view bytes) {
  if (format_ == Format::jsonl) {
    const auto last = bytes.rfind('\n');
    if (last != std::string_view::npos) whole_ = fed_ + last + 1;
    fed_ += bytes.size();
    return;
  }
  for (const char c : bytes) {
    ++fed_;
    if (c == '\n') {
      end_of_line();
    } else if (format_ == Format::csv) {
      if (c == '"') quoted_ = !quoted_;
    } else if (line_start_.size() < 2) {
      line_start_.push_back(c);
    }
  }
}

void WholeMessages::end_of_line() {
  // A pretty message ends with a line that is not indented and opens nothing.
  const bool whole = format_ == Format::csv ? !quoted_
                                            : line_start_ != "{" && line_start_ != "[" &&
                                                  !line_start_.starts_with(' ');
  if (whole) whole_ = fed_;
  line_start_.clear();
}

}  // namespace relay::file
