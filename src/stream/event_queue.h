#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "connector/source.h"
#include "core/record.h"
#include "stream/event_row.h"

namespace relay::stream {

/// Up to which event all were handed out.
struct Cursor {
  std::int64_t n = 0;        ///< of the transaction
  std::int64_t ordinal = 0;  ///< how many of its events; 0: all of them
  std::int64_t seq = 0;      ///< `EventRow::seq` of the last one

  bool whole() const { return ordinal == 0; }
  friend bool operator==(const Cursor&, const Cursor&) = default;
};

/// Appends an event to the batch, which is settled at `cursor`. Its key is the payload's `group_id`
/// if that is a text or a number.
void append(RecordBatch& batch, const EventRow& row, const Cursor& cursor);

/// Gives the events that belong to no group the key of their stream: they are delivered in its
/// order.
void give_keys(RecordBatch& batch, std::int64_t stream);

/// Events in memory, in order. The newest one of a transaction that has not ended is not given,
/// since it may be the last one. One thread at a time.
class EventQueue {
 public:
  void push(std::int64_t n, std::int64_t ordinal, const EventRow& row);
  /// The transaction of the last event has ended.
  void end_transaction();
  void clear();

  bool has_events() const { return events_ > (open_ ? 1U : 0U); }
  std::size_t events() const { return events_; }
  std::size_t bytes() const { return bytes_; }
  /// Moves events into the batch, at least one, as far as the limits allow. Returns the place of
  /// the last one. `has_events` must be true.
  Cursor take(const ReadLimits& limits, RecordBatch& batch);

 private:
  struct Entry {
    Cursor cursor;
    Timestamp created_at;
    std::size_t begin;  // of its text in the chunk: id, payload, metadata
    std::size_t payload;
    std::size_t metadata;
  };
  struct Chunk {
    std::string text;
    std::vector<Entry> entries;
    std::size_t taken = 0;
  };
  std::deque<Chunk> chunks_;
  std::size_t events_ = 0;
  std::size_t bytes_ = 0;
  bool open_ = false;
};

}  // namespace relay::stream
