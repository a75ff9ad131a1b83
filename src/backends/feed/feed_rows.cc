#include "backends/feed/feed_rows.h"

#include "outbox/json_scanner.h"

namespace relay::feed {

namespace {

using Element = postgres::BinaryArray::Element;

constexpr std::string_view kNull = "null";

/// The parts of the native envelope of a row that a feed stores, as raw JSON; empty: there is none.
struct Parts {
  std::string_view key;
  std::string_view new_row;
  std::string_view old_row;
};

bool take_parts(std::string_view body, Parts& parts) {
  bool has_new = false;
  bool has_old = false;
  const bool readable =
      outbox::for_each_member(body, [&](std::string_view name, std::string_view value) {
        has_new = has_new || name == "new";
        has_old = has_old || name == "old";
        if (value == kNull) return true;
        if (name == "key") parts.key = value;
        if (name == "new") parts.new_row = value;
        if (name == "old") parts.old_row = value;
        return true;
      });
  return readable && has_new && has_old;
}

void add_or_null(postgres::BinaryArray& array, std::string_view value) {
  if (value.empty()) {
    array.add_null();
  } else {
    array.add(value);
  }
}

std::string_view action_of(const Parts& parts) {
  if (parts.new_row.empty()) return "D";
  return parts.old_row.empty() ? "I" : "U";
}

}  // namespace

FeedRows::FeedRows(bool refresh_rows)
    : refresh_rows_(refresh_rows),
      ids_(Element::int8),
      numbers_(Element::int8),
      actions_(Element::text),
      keys_(Element::text),
      new_rows_(Element::text),
      old_rows_(Element::text) {}

Result<void> FeedRows::add(const Message& message) {
  if (message.full_refresh && message.ordinal == 0) {
    add_row({message.outbox_id, 0}, "F", {}, {}, {});
  }
  if (message.full_refresh && !refresh_rows_) return {};
  Parts parts;
  if (message.outbox_id == 0 || !take_parts(message.body, parts)) {
    return fail(ErrorClass::misconfigured, "no_row",
                "the sink feed takes the changes of an outbox, one row a message, in the native "
                "envelope",
                "let create_change_feed() configure the pipeline");
  }
  // A full refresh without rows is its row F alone.
  if (parts.new_row.empty() && parts.old_row.empty()) return {};
  add_row({message.outbox_id, message.ordinal + 1}, action_of(parts), parts.key, parts.new_row,
          parts.old_row);
  return {};
}

void FeedRows::add_row(Place place, std::string_view action, std::string_view key,
                       std::string_view new_row, std::string_view old_row) {
  ++count_;
  bytes_ += key.size() + new_row.size() + old_row.size();
  ids_.add(place.outbox_id);
  numbers_.add(place.row_num);
  actions_.add(action);
  add_or_null(keys_, key);
  add_or_null(new_rows_, new_row);
  add_or_null(old_rows_, old_row);
}

std::vector<std::string_view> FeedRows::finish() {
  return {ids_.finish(),  numbers_.finish(),  actions_.finish(),
          keys_.finish(), new_rows_.finish(), old_rows_.finish()};
}

}  // namespace relay::feed
