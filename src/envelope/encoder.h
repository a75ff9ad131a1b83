#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/message.h"
#include "core/record.h"

namespace relay::envelope {

/// How a sink's broker carries the attributes of a CloudEvent in headers.
struct CloudEventsBinding {
  std::string_view prefix;       ///< of attribute names; empty: the broker has no headers for them
  bool percent_encoded = false;  ///< values are ASCII, all else is percent-encoded
  std::string_view content_type_header;  ///< empty: the sink has a place of its own for it
};

/// Headers that are part of a broker's protocol: they say what the broker does with a message, not
/// what the message says.
struct HeaderRules {
  /// Null: the broker has none. Those of a record are dropped: they were meant for the broker that
  /// it came from.
  bool (*is_protocol)(std::string_view name) = nullptr;
  /// The only ones of them that a configuration may set.
  std::span<const std::string_view> settable = {};

  bool drops(std::string_view name) const { return is_protocol != nullptr && is_protocol(name); }
  /// Ignores case.
  bool refuses(std::string_view name) const;
};

/// How records become messages. Templates are those of template.h, the filter that of filter.h.
struct EncoderOptions {
  std::string pipeline;   ///< its name
  std::string id_prefix;  ///< begins each id: the pipeline's name unless configured otherwise
  bool row_mode = false;  ///< one message a row instead of one a delta
  /// A delta of more rows is cut into several messages; the two rows of an update stay together.
  std::int64_t delta_max_rows = 1000;
  std::string wire_format = "native";
  bool cloudevents_binary = false;  ///< attributes in headers, the bare data as body
  std::string cloudevents_source;   ///< empty: /pgtrickle/<pipeline>, percent-encoded
  CloudEventsBinding cloudevents_binding;
  /// In row mode, a message without body and with the same key after each delete of a row.
  bool tombstones = false;
  /// A delta is split by what its rows render to. An update whose old and new row render different
  /// subjects (or keys, with `key_template`) becomes a delete there and, after it, an insert here.
  std::string subject_template = "{stream_table}";
  /// Without it: in row mode the row's primary key (one column: its value as text; several: a JSON
  /// array; no known key: the stream table), in delta mode the stream table, of an event its key.
  std::optional<std::string> key_template;
  std::map<std::string, std::string> headers;  ///< values are templates
  HeaderRules header_rules;
  /// Judges each row by itself, so that the messages are the changes of the table "WHERE filter":
  /// an update of which only the new row passes is an insert, one of which only the old row passes
  /// a delete. A row that lacks a column of the filter, or has one of another type, is refused, not
  /// left out. Of an event it asks the payload, where what is missing is NULL.
  std::optional<std::string> filter;
  std::vector<std::string> columns;  ///< of rows; key columns are always kept. Empty: all
  bool skip_full_refresh = false;
  bool event_envelope = false;  ///< {"id","type","key","payload"} around an event's payload
  /// Makes a value that goes into a subject legal there (connector/registry.h); null: as it is.
  void (*escape)(std::string& out, std::string_view value) = nullptr;
};

/// Turns records into messages: slices raw JSON and splices it into the envelope, never parsing a
/// payload into a tree, so that numbers of any precision pass through byte for byte. Deterministic:
/// the same record gives the same messages with the same ids, however batches are cut. One thread
/// at a time. What cannot be sent becomes a message with `refused` set (its body shows the rows,
/// its subject is empty), so that it is set aside and its neighbours go on. A record of which the
/// filter leaves nothing gives no message, unless it is a full refresh: that the state is empty now
/// must be told. A full refresh without rows renders each column as NULL.
class Encoder {
 public:
  /// Misconfigured: a template or the filter does not compile; the message says where and why.
  static Result<std::unique_ptr<Encoder>> make(EncoderOptions options);
  ~Encoder();

  /// Messages of all records, in order. The batch keeps the records' memory.
  MessageBatch encode(RecordBatch records);

 private:
  struct Impl;

 public:
  explicit Encoder(std::unique_ptr<Impl> impl);  // for `make`: Impl is private

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace relay::envelope
