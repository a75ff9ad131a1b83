#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "core/message.h"
#include "core/record.h"
#include "envelope/changes.h"
#include "envelope/json_reader.h"

namespace relay::envelope {

/// What an envelope says about the record behind a message.
struct RecordFacts {
  std::string_view stream_table;  ///< a JSON string, quotes included
  const TableShape* shape = nullptr;
  std::string_view pipeline;
  std::string_view event_source;  ///< `source` of CloudEvents: a URI reference
  std::int64_t sequence = 0;
  Timestamp at{};
  std::string_view refresh_mode;          ///< empty: unknown
  std::int64_t refresh_duration_ms = -1;  ///< -1: unknown
  bool full_refresh = false;
  bool snapshot = false;  ///< kSnapshotMode
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

/// What an envelope says about its message.
struct MessageFacts {
  const RecordFacts& record;
  std::string_view id;
  std::string_view key;   ///< the ordering key
  std::string_view type;  ///< Message::op
  std::span<const Header> headers;
  bool is_event = false;
};

/// A message that carries a delta.
struct DeltaFacts {
  const MessageFacts& message;
  RowList inserted;
  RowList deleted;
  std::int64_t rows = 0;
  int part = 0;  ///< 0: not cut
  bool final = true;
};

/// A message that carries the change of one row.
struct RowFacts {
  const MessageFacts& message;
  Change change;
  const RowPrinter& printer;
  std::int64_t ordinal = 0;  ///< of its first row in the record
};

/// A message that passes an event on.
struct EventFacts {
  const MessageFacts& message;
  const Event& event;
  bool json = false;  ///< the payload is one well-formed JSON value
};

/// Takes the headers that a format makes. Names are without the broker's prefix.
using HeaderAdder = std::function<void(std::string_view name, std::string_view value)>;

/// A wire format: how the body of a message is written. One file each, and a line in the table in
/// format.cc.
struct Format {
  std::string_view name;
  std::string_view content_type;
  void (*delta)(std::string& out, const DeltaFacts&);  ///< null: it has a message for each row only
  void (*row)(std::string& out, const RowFacts&);
  /// Null, or false: an event's payload is sent as it is.
  bool (*event)(std::string& out, const EventFacts&) = nullptr;
  /// Headers that describe the message; `content_type` is that of its body. Null: none.
  void (*headers)(const MessageFacts&, std::string_view content_type, const HeaderAdder&) = nullptr;
  bool key_is_object = false;  ///< the default key of a row is {"column":value, ...}
};

/// Null when there is none of that name. `headers_only`: the form whose body is the bare data, with
/// the description in headers (binary mode of CloudEvents), where the format has one.
const Format* find_format(std::string_view name, bool headers_only = false);
std::string format_names();

extern const Format kNativeFormat;
extern const Format kDebeziumFormat;
extern const Format kCloudEventsFormat;
extern const Format kCloudEventsBinaryFormat;

}  // namespace relay::envelope
