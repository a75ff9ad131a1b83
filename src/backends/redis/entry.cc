#include "backends/redis/entry.h"

#include <algorithm>

#include "backends/redis/codec.h"
#include "backends/redis/columns.h"

namespace relay::redis {

namespace {

constexpr std::string_view kJson = "application/json";

bool has_content_type_field(const Message& message) {
  return !message.content_type.empty() && message.content_type != kJson;
}

}  // namespace

EntryWriter::EntryWriter(FieldMode mode, std::optional<std::int64_t> maxlen)
    : mode_(mode), maxlen_(maxlen ? std::to_string(*maxlen) : std::string()) {}

/// "pgtrickle-id" is the field pgtrickle_id; other headers keep their names.
std::string_view EntryWriter::field_name(std::string_view header) {
  if (!header.starts_with("pgtrickle-")) return header;
  name_.assign(header);
  std::ranges::replace(name_, '-', '_');
  return name_;
}

Result<void> EntryWriter::append(std::string& out, const Message& message) {
  columns_.clear();
  if (mode_ == FieldMode::columns && !message.tombstone) {
    if (auto read = read_columns(message.body, columns_); !read) return read;
  }
  const bool has_payload = mode_ == FieldMode::payload && !message.tombstone;
  const bool has_type = has_payload && has_content_type_field(message);
  std::size_t fields = columns_.size() + (has_payload ? 1 : 0) + (has_type ? 1 : 0);
  for_each_header(message, [&](std::string_view, std::string_view) { ++fields; });

  CommandWriter writer(out);
  writer.begin(3 + (maxlen_.empty() ? 0 : 3) + 2 * fields);
  writer.add("XADD");
  writer.add(message.subject);
  if (!maxlen_.empty()) {
    writer.add("MAXLEN");
    writer.add("~");
    writer.add(maxlen_);
  }
  writer.add("*");
  for_each_header(message, [&](std::string_view name, std::string_view value) {
    writer.add(field_name(name));
    writer.add(value);
  });
  if (has_type) {
    writer.add("content_type");
    writer.add(message.content_type);
  }
  if (has_payload) {
    writer.add("payload");
    writer.add(message.body);
  }
  for (const auto& [name, value] : columns_) {
    writer.add(name);
    writer.add(value);
  }
  return {};
}

}  // namespace relay::redis
