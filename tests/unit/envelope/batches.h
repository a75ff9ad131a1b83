#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/message.h"
#include "core/record.h"
#include "envelope/encoder.h"

namespace relay::envelope {

/// Builds a batch of records as a source would: all texts in the batch's arena.
class Batch {
 public:
  explicit Batch(std::string table = "orders", std::vector<std::string> key_columns = {"id"}) {
    use(std::move(table), std::move(key_columns));
  }

  /// Records that are added from now on come from this table.
  void use(std::string table, std::vector<std::string> key_columns) {
    shape_ = std::make_shared<const TableShape>(
        TableShape{std::move(table), std::move(key_columns), "shop", "public"});
  }

  Record& delta(std::int64_t id, const std::vector<std::string>& inserted,
                const std::vector<std::string>& deleted) {
    Delta delta;
    delta.inserted = array(inserted);
    delta.deleted = array(deleted);
    delta.inserted_count = static_cast<std::int64_t>(inserted.size());
    delta.deleted_count = static_cast<std::int64_t>(deleted.size());
    return add(id, delta);
  }
  Record& truncate(std::int64_t id) {
    Record& record = delta(id, {}, {});
    std::get<Delta>(record.content).full_refresh = true;
    return record;
  }
  Record& row(std::int64_t id, RowChange::Op op, std::string_view new_row,
              std::string_view old_row) {
    return add(id, RowChange{op, copy(new_row), copy(old_row)});
  }
  Record& event(std::int64_t id, std::string_view payload, std::string_view type = "order.paid",
                std::string_view key = "k1") {
    Event event;
    event.payload = copy(payload);
    event.type = copy(type);
    event.key = copy(key);
    return add(id, event);
  }

  std::string_view copy(std::string_view text) { return batch_.arena.copy(text); }
  RecordBatch& operator*() { return batch_; }
  RecordBatch take() { return std::move(batch_); }

 private:
  std::string_view array(const std::vector<std::string>& rows) {
    std::string text = "[";
    for (const std::string& row : rows) text += (text.size() > 1 ? ", " : "") + row;
    return copy(text + "]");
  }
  template <class Content>
  Record& add(std::int64_t id, Content content) {
    using namespace std::chrono;
    Record record;
    record.id = id;
    record.outbox_id = id;
    record.pgt_id = copy("0a1b2c3d-0000-4000-8000-000000000000");
    record.created_at = sys_days(2026y / 4 / 27) + 10h + 15min + 3s + 412ms;
    record.content = content;
    return batch_.add(std::move(record), shape_);
  }

  RecordBatch batch_;
  std::shared_ptr<const TableShape> shape_;
};

inline Delta& delta_of(Record& record) {
  return std::get<Delta>(record.content);
}

inline std::unique_ptr<Encoder> encoder(EncoderOptions options) {
  options.id_prefix = "p";
  auto made = Encoder::make(std::move(options));
  return made ? std::move(*made) : nullptr;
}

inline MessageBatch encode(EncoderOptions options, Batch batch) {
  return encoder(std::move(options))->encode(batch.take());
}

/// "subject op" of each message.
inline std::vector<std::string> routes(const MessageBatch& batch) {
  std::vector<std::string> result;
  for (const Message& message : batch.messages) {
    result.push_back(std::string(message.subject) + " " + std::string(message.op));
  }
  return result;
}

/// What stands between two markers of a body.
inline std::string between(std::string_view body, std::string_view begin, std::string_view end) {
  const std::size_t from = body.find(begin);
  if (from == std::string_view::npos) return "<missing>";
  const std::size_t start = from + begin.size();
  return std::string(body.substr(start, body.find(end, start) - start));
}
inline std::string inserted(const Message& message) {
  return between(message.body, "\"inserted\":", ",\"deleted\":");
}
inline std::string deleted(const Message& message) {
  return between(message.body, "\"deleted\":", "},\"metadata\"");
}

}  // namespace relay::envelope
