#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/record.h"
#include "envelope/changes.h"
#include "envelope/json_reader.h"

namespace relay::envelope {

/// What an envelope says about the record behind a message.
struct RecordFacts {
  std::string_view stream_table;  ///< a JSON string, quotes included
  std::int64_t sequence = 0;
  Timestamp at{};
  std::string_view refresh_mode;          ///< empty: unknown
  std::int64_t refresh_duration_ms = -1;  ///< -1: unknown
  bool full_refresh = false;
};

/// Rows as envelopes show them: byte for byte, or only their wanted columns.
struct RowPrinter {
  const Rows* rows = nullptr;
  std::span<const std::string> columns;  ///< beside the key's; empty: all
  std::span<const std::string> key_columns;

  void append(std::string& out, std::uint32_t row) const;
  /// The key columns as an object, or null where the row lacks one or there are none.
  void append_key(std::string& out, std::uint32_t row) const;
};

/// Rows of one side of a delta: a raw array, or some rows of it.
struct RowList {
  std::string_view array;  ///< used when `printer` is null; empty: no rows
  const RowPrinter* printer = nullptr;
  std::span<const std::uint32_t> rows;

  void append(std::string& out) const;
};

/// A message that carries a delta.
struct DeltaFacts {
  const RecordFacts& record;
  std::string_view id;
  RowList inserted;
  RowList deleted;
  std::int64_t rows = 0;
  int part = 0;  ///< 0: not cut
  bool final = true;
};

/// A message that carries the change of one row.
struct RowFacts {
  const RecordFacts& record;
  std::string_view id;
  Change change;
  const RowPrinter& printer;
};

/// A wire format: how the body of a message is written. One file each, and a line in the table in
/// format.cc.
struct Format {
  std::string_view name;
  std::string_view content_type;
  void (*delta)(std::string& out, const DeltaFacts&);  ///< null: it has a message for each row only
  void (*row)(std::string& out, const RowFacts&);
};

/// Null when there is none of that name.
const Format* find_format(std::string_view name);
std::string format_names();

extern const Format kNativeFormat;

}  // namespace relay::envelope
