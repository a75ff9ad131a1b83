#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/arena.h"
#include "core/error.h"

namespace relay {

/// Microseconds since 1970, UTC, as PostgreSQL's clock had it.
using Timestamp = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>;

/// How far a source has been settled. `id` and `row` are ordered and mean what the source says (an
/// outbox: the last row that is wholly settled, and how many rows of the claim check behind it);
/// `mark` is a text of the source's own that tells this place from another one with the same
/// numbers (an outbox: the pgt_id of the row at `id`).
struct Position {
  std::int64_t id = 0;
  std::int64_t row = 0;
  std::string mark;

  friend bool operator==(const Position&, const Position&) = default;
  friend bool operator<(const Position& a, const Position& b) {
    return a.id != b.id ? a.id < b.id : a.row < b.row;
  }
};

/// What records of one table have in common.
struct TableShape {
  std::string name;                      ///< `stream_table` in envelopes and templates
  std::vector<std::string> key_columns;  ///< empty: rows have no known key
  std::string database = {};             ///< empty: not known
  std::string schema = {};               ///< of the table; empty: not known
};

/// The change of one outbox row: rows that left the table and rows that came into it, as raw JSON.
/// A delta that was cut (a claim check) comes as several records with rising `first_ordinal`.
struct Delta {
  std::string_view inserted;  ///< a JSON array, brackets included; empty means no rows
  std::string_view deleted;   ///< the same
  std::int64_t inserted_count = 0;
  std::int64_t deleted_count = 0;
  std::string_view refresh_mode;          ///< DIFFERENTIAL, FULL, kSnapshotMode; empty: none
  std::int64_t refresh_duration_ms = -1;  ///< -1: unknown
  bool full_refresh = false;
  /// The number, in the whole outbox row, of this record's first row, from 0. Rows are numbered
  /// deleted first, then inserted, within a record.
  std::int64_t first_ordinal = 0;
  int part = 0;       ///< 0: the whole delta; else 1, 2, ... of a cut one
  bool final = true;  ///< false: more parts follow
};

/// One change of one row, as raw JSON objects.
struct RowChange {
  enum class Op { insert, update, remove, refresh };
  Op op = Op::insert;
  std::string_view new_row;  ///< empty: none
  std::string_view old_row;  ///< empty: none
};

/// One payload that is passed on as it is: an application's event, a broker's message.
struct Event {
  std::string_view id;       ///< the event's own id; empty: made from the position
  std::string_view payload;  ///< bytes
  std::string_view type;
  std::string_view key;
  std::string_view content_type = "application/json";  ///< empty: the source does not know it
};

/// What a source read. Views point into the batch's arena.
struct Record {
  std::int64_t id = 0;                ///< Position::id once this record is settled
  std::int64_t row = 0;               ///< Position::row once this record is settled
  std::string_view mark;              ///< Position::mark
  std::int64_t outbox_id = 0;         ///< the row's own id; 0: it does not come from an outbox
  std::string_view pgt_id;            ///< the row's uuid; empty: none
  Timestamp created_at{};             ///< when the change was written
  std::string_view refresh_id;        ///< empty: none
  std::string_view headers;           ///< a JSON object of text, or empty
  const TableShape* shape = nullptr;  ///< the batch keeps it; null: it comes from no table
  std::variant<Delta, RowChange, Event> content;
  /// Set where the record cannot be sent at all (larger than `max_record_bytes`, of a payload
  /// version that is not known): it becomes one refused message.
  SharedError refused;

  /// How far the source is settled once this record is.
  Position position() const { return {id, row, std::string(mark)}; }
};

/// Records in order, and the memory that they point into.
struct RecordBatch {
  Arena arena;
  std::vector<Record> records;
  /// Those of the records, which may come from several tables: once for each run of one table.
  std::vector<std::shared_ptr<const TableShape>> shapes;
  /// Set for a deliberate replay: appended to each message id (":r1"), and the position stays.
  std::string id_suffix;

  /// Adds a record of that shape.
  Record& add(Record&& record, const std::shared_ptr<const TableShape>& shape) {
    if (shapes.empty() || shapes.back() != shape) shapes.push_back(shape);
    Record& added = records.emplace_back(std::move(record));
    added.shape = shape.get();
    return added;
  }

  bool empty() const { return records.empty(); }
  bool is_replay() const { return !id_suffix.empty(); }
};

}  // namespace relay
