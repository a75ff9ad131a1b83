#pragma once

#include <charconv>
#include <cstdint>
#include <iterator>
#include <span>
#include <string_view>
#include <vector>

#include "core/arena.h"
#include "core/error.h"
#include "core/record.h"

namespace relay {

struct Header {
  std::string_view name;
  std::string_view value;
};

/// What a sink sends. Views point into the memory of the MessageBatch that it is part of.
struct Message {
  std::string_view id;       ///< stable: the same change has it however often it is sent
  std::string_view subject;  ///< the rendered route, escaped for the sink's broker
  std::string_view key;      ///< ordering key: messages with the same one keep their order
  std::string_view op;       ///< insert, update, delete, refresh, delta; an event's type
  std::string_view body;
  std::string_view content_type;
  std::string_view stream_table;
  std::span<const Header> headers;  ///< those that the configuration or the row adds
  std::int64_t outbox_id = 0;       ///< 0: it does not come from an outbox
  std::int64_t ordinal = 0;  ///< the number, in the whole outbox row, of its first row, from 0
  bool full_refresh = false;
  bool tombstone =
      false;  ///< the body is absent, which where the broker can tell is not an empty one
  Timestamp created_at{};  ///< when the change was written
  std::size_t record = 0;  ///< index of its record in the batch
  /// Set by the encoder on what cannot be sent (a column is missing, say). Never reaches a sink.
  SharedError refused;
};

/// The messages of a batch of records, in order, with all that they point into.
struct MessageBatch {
  RecordBatch records;
  Arena arena;
  std::vector<Message> messages;
  std::size_t bytes = 0;  ///< memory of all that, for the bounds on what waits

  /// Puts what follows this batch behind it: one batch, as if it had been read at once. Neither of
  /// them is a replay.
  void append(MessageBatch next);
};

/// Calls `add(name, value)` for each header that a broker with headers sends beside the body:
/// pgtrickle-id, -op, -stream-table, -outbox-id, -full-refresh, then the message's own (traceparent
/// is one of these).
template <class Add>
void for_each_header(const Message& message, Add&& add) {
  add(std::string_view("pgtrickle-id"), message.id);
  if (!message.op.empty()) add(std::string_view("pgtrickle-op"), message.op);
  if (!message.stream_table.empty()) {
    add(std::string_view("pgtrickle-stream-table"), message.stream_table);
  }
  if (message.outbox_id != 0) {
    char digits[20];
    const auto end = std::to_chars(std::begin(digits), std::end(digits), message.outbox_id).ptr;
    add(std::string_view("pgtrickle-outbox-id"), std::string_view(digits, end));
  }
  if (message.full_refresh)
    add(std::string_view("pgtrickle-full-refresh"), std::string_view("true"));
  for (const Header& header : message.headers) add(header.name, header.value);
}

/// What became of one message.
struct Outcome {
  enum class Kind {
    delivered,
    duplicate,  ///< the broker had it already
    rejected,   ///< poison: `error` says why
    unknown,    ///< timeout, closed channel, broker away: send it again with the same id
  };
  Kind kind = Kind::delivered;
  SharedError error;
  bool id_conflict = false;  ///< another message was there with its id
  /// Of an unknown one: the broker refused this message, and may take others meanwhile. Without an
  /// error: it was not sent, because it follows such a message.
  bool others_may_go = false;
  /// Of an unknown one: nothing is to be sent until the operator resumes the pipeline.
  bool halts = false;

  /// Unknown, and the broker refused this message for a reason that may pass.
  bool was_refused() const { return others_may_go && error != nullptr; }

  static Outcome delivered() { return {Kind::delivered, nullptr}; }
  static Outcome duplicate() { return {Kind::duplicate, nullptr}; }
  static Outcome rejected(SharedError error) { return {Kind::rejected, std::move(error)}; }
  static Outcome unknown(SharedError error) { return {Kind::unknown, std::move(error)}; }
};

}  // namespace relay
