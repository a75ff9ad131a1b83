#include "stream/event_queue.h"

#include <simdjson.h>

#include <algorithm>
#include <utility>

#include "core/uuid.h"

namespace relay::stream {

namespace {

constexpr std::size_t kChunkBytes = 64 * 1024;
/// `group_id` at the top of a JSON object; empty: there is none. `payload` is of an arena.
std::string_view group_of(std::string_view payload, Arena& arena) {
  if (payload.find("\"group_id\"") == std::string_view::npos) return {};
  static thread_local simdjson::ondemand::parser parser;
  simdjson::ondemand::document document;
  if (parser.iterate(payload.data(), payload.size(), payload.size() + Arena::kPadding)
          .get(document) != simdjson::SUCCESS) {
    return {};
  }
  simdjson::ondemand::value value;
  if (document.find_field_unordered("group_id").get(value) != simdjson::SUCCESS) return {};
  simdjson::ondemand::json_type type{};
  if (value.type().get(type) != simdjson::SUCCESS) return {};
  if (type == simdjson::ondemand::json_type::string) {
    std::string_view text;
    return value.get_string().get(text) == simdjson::SUCCESS ? arena.copy(text) : "";
  }
  if (type == simdjson::ondemand::json_type::number) {
    std::string_view text = value.raw_json_token();
    text = text.substr(0, text.find_last_not_of(" \t\r\n") + 1);
    return text;
  }
  return {};
}

}  // namespace

void append(RecordBatch& batch, const EventRow& row, const Cursor& cursor) {
  Record record;
  record.id = cursor.whole() ? cursor.n : cursor.n - 1;
  record.row = cursor.ordinal;
  record.created_at = row.created_at;
  Event event;
  event.id = uuid_text(row.id, batch.arena);
  event.payload = batch.arena.copy(row.payload);
  event.key = group_of(event.payload, batch.arena);
  record.content = event;
  if (row.metadata.starts_with('{')) record.headers = batch.arena.copy(row.metadata);
  batch.records.push_back(std::move(record));
}

void give_keys(RecordBatch& batch, std::int64_t stream) {
  if (batch.empty()) return;
  const std::string_view key = batch.arena.copy(std::to_string(stream));
  for (Record& record : batch.records) {
    auto& event = std::get<Event>(record.content);
    if (event.key.empty()) event.key = key;
  }
}

void EventQueue::push(std::int64_t n, std::int64_t ordinal, const EventRow& row) {
  const std::size_t size = row.id.size() + row.payload.size() + row.metadata.size();
  if (chunks_.empty() || chunks_.back().text.size() + size > kChunkBytes) {
    chunks_.emplace_back();
    chunks_.back().text.reserve(std::max(kChunkBytes, size));
  }
  Chunk& chunk = chunks_.back();
  chunk.entries.push_back({{n, ordinal, row.seq},
                           row.created_at,
                           chunk.text.size(),
                           row.payload.size(),
                           row.metadata.size()});
  chunk.text.append(row.id).append(row.payload).append(row.metadata);
  ++events_;
  bytes_ += size;
  open_ = true;
}

void EventQueue::end_transaction() {
  if (!open_) return;
  chunks_.back().entries.back().cursor.ordinal = 0;
  open_ = false;
}

void EventQueue::clear() {
  chunks_.clear();
  events_ = 0;
  bytes_ = 0;
  open_ = false;
}

Cursor EventQueue::take(const ReadLimits& limits, RecordBatch& batch) {
  Cursor last;
  do {
    Chunk& chunk = chunks_.front();
    const Entry& entry = chunk.entries[chunk.taken];
    const std::string_view text(chunk.text);
    EventRow row;
    row.id = text.substr(entry.begin, kUuidBytes);
    row.payload = text.substr(entry.begin + kUuidBytes, entry.payload);
    row.metadata = text.substr(entry.begin + kUuidBytes + entry.payload, entry.metadata);
    row.created_at = entry.created_at;
    append(batch, row, entry.cursor);
    last = entry.cursor;
    --events_;
    bytes_ -= kUuidBytes + entry.payload + entry.metadata;
    if (++chunk.taken == chunk.entries.size()) chunks_.pop_front();
  } while (has_events() && batch.records.size() < limits.records &&
           batch.arena.size() < limits.bytes);
  return last;
}

}  // namespace relay::stream
