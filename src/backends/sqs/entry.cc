#include "backends/sqs/entry.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/digest.h"
#include "core/text.h"

namespace relay::sqs {

namespace {

constexpr std::size_t kMostAttributes = 10;
constexpr std::size_t kLongestFifoId = 128;
constexpr std::size_t kLongestName = 256;
constexpr std::string_view kType = "String";

bool is_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool begins_reserved(std::string_view name) {
  const auto begins = [&](std::string_view prefix) {
    return name.size() >= prefix.size() &&
           equal_ignoring_case(name.substr(0, prefix.size()), prefix);
  };
  return begins("aws.") || begins("amazon.");
}

bool is_attribute_name(std::string_view name) {
  return !name.empty() && name.size() <= kLongestName && name.front() != '.' &&
         name.back() != '.' && name.find("..") == std::string_view::npos &&
         !begins_reserved(name) && std::all_of(name.begin(), name.end(), [](char c) {
           return is_alphanumeric(c) || c == '_' || c == '-' || c == '.';
         });
}

Result<Entry> rejected(const Message& message, std::string code, std::string_view what,
                       std::string remedy) {
  return fail(ErrorClass::rejected, std::move(code),
              fmt::format("message {}: {}", message.id, what), std::move(remedy));
}

Result<Entry> too_large(const Message& message, std::size_t bytes, const SizeLimit& limit) {
  using Said = SizeLimit::Said;
  const std::string_view name = limit.said == Said::by_queue    ? "the queue's MaximumMessageSize"
                                : limit.said == Said::by_option ? "max_message_bytes"
                                                                : "the most that SQS takes";
  const std::string_view remedy =
      limit.said == Said::by_queue && limit.bytes < kLargestBytes
          ? "raise MaximumMessageSize of the queue (up to 1 MiB), or send less; then retry the "
            "dead letter"
      : limit.said == Said::by_option
          ? "raise max_message_bytes where the queue takes more, or send less; then retry the "
            "dead letter"
          : "send less: fewer columns, or a filter; then retry the dead letter";
  return rejected(
      message, "too_large",
      fmt::format("it has {} bytes with its attributes, and {} is {}", bytes, name, limit.bytes),
      std::string(remedy));
}

struct Attributes {
  std::vector<Header> plain;
  std::vector<Header> others;  // to go into kOtherHeaders
};

bool has_name(const std::vector<Header>& headers, std::string_view name) {
  return std::any_of(headers.begin(), headers.end(),
                     [&](const Header& header) { return header.name == name; });
}

Attributes attributes_of(const Message& message, std::vector<std::string>& memory) {
  Attributes all;
  for_each_header(message, [&](std::string_view name, std::string_view value) {
    if (has_name(all.plain, name) || has_name(all.others, name)) return;
    // The memory of an own number ends with the call.
    memory.emplace_back(value);
    const Header header{name, memory.back()};
    const bool fits = is_attribute_name(name) && !value.empty() && is_legal_text(value);
    (fits ? all.plain : all.others).push_back(header);
  });
  const std::size_t most = all.others.empty() ? kMostAttributes : kMostAttributes - 1;
  if (all.plain.size() > most) {
    const auto rest = all.plain.begin() + static_cast<std::ptrdiff_t>(kMostAttributes - 1);
    all.others.insert(all.others.begin(), rest, all.plain.end());
    all.plain.erase(rest, all.plain.end());
  }
  return all;
}

std::string object_of(const std::vector<Header>& headers) {
  std::string json = "{";
  for (const Header& header : headers) {
    if (json.size() > 1) json += ',';
    append_json_string(json, header.name);
    json += ':';
    append_json_string(json, header.value);
  }
  json += '}';
  return json;
}

void add_attribute(Entry& entry, std::string_view name, std::string_view value) {
  entry.fields += entry.fields.ends_with('{') ? "" : ",";
  append_json_string(entry.fields, name);
  entry.fields += R"(:{"DataType":"String","StringValue":)";
  append_json_string(entry.fields, value);
  entry.fields += '}';
  entry.bytes += name.size() + kType.size() + value.size();
}

void add_fifo_fields(Entry& entry, const Message& message) {
  const std::string_view group = !message.subject.empty()        ? message.subject
                                 : !message.key.empty()          ? message.key
                                 : !message.stream_table.empty() ? message.stream_table
                                                                 : std::string_view("pgtrickle");
  entry.fields += R"(,"MessageGroupId":)";
  append_json_string(entry.fields, fifo_id(group));
  entry.fields += R"(,"MessageDeduplicationId":)";
  append_json_string(entry.fields, fifo_id(message.id));
}

}  // namespace

bool is_legal_text(std::string_view text) {
  // What append_json_string would replace is no UTF-8; what it escapes as \u00XX is forbidden. Most
  // text is ASCII, and needs no more than one look.
  std::size_t i = 0;
  while (i < text.size()) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80) {
      if (byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') return false;
      ++i;
      continue;
    }
    const std::size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC2 ? 2 : 0;
    if (length == 0 || byte > 0xF4 || i + length > text.size()) return false;
    std::uint32_t code = byte & (0xFFu >> (length + 1));
    for (std::size_t k = 1; k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xC0) != 0x80) return false;
      code = code << 6 | (next & 0x3Fu);
    }
    const std::uint32_t least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
    const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
    if (code < least || code > 0x10FFFF || surrogate || code == 0xFFFE || code == 0xFFFF) {
      return false;
    }
    i += length;
  }
  return true;
}

std::string fifo_id(std::string_view text) {
  const bool plain =
      !text.empty() && text.size() <= kLongestFifoId &&
      std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  return plain ? std::string(text) : hex(bytes_of(sha256(text)));
}

Result<Entry> make_entry(const Message& message, const SinkOptions& options,
                         const SizeLimit& limit) {
  if (message.body.empty()) {
    return rejected(message, "empty", "its body is empty, and SQS takes no empty message",
                    "leave it out with a filter, or discard it");
  }
  if (!is_legal_text(message.body)) {
    return rejected(message, "forbidden_characters",
                    "its body holds bytes that are no UTF-8, or characters that SQS does not take",
                    "encode such payloads, as base64 for example");
  }
  Entry entry;
  entry.fields.reserve(message.body.size() + message.body.size() / 4 + 700);
  entry.fields += R"(,"MessageBody":)";
  append_json_string(entry.fields, message.body);
  entry.bytes = message.body.size();
  entry.fields += R"(,"MessageAttributes":{)";
  std::vector<std::string> memory;
  memory.reserve(message.headers.size() + 5);  // views into it stay valid
  const Attributes attributes = attributes_of(message, memory);
  for (const Header& header : attributes.plain) add_attribute(entry, header.name, header.value);
  if (!attributes.others.empty()) {
    add_attribute(entry, kOtherHeaders, object_of(attributes.others));
  }
  entry.fields += '}';
  if (options.queue.fifo) add_fifo_fields(entry, message);
  if (entry.bytes > limit.bytes) return too_large(message, entry.bytes, limit);
  return entry;
}

}  // namespace relay::sqs
