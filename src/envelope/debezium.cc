// The change event of Debezium's connectors, as its JSON converter writes it without schemas:
// https://debezium.io/documentation/reference/stable/connectors/postgresql.html
// Times are those of the change and not of the sending, so that a message that is sent again is the
// same one.

#include <fmt/format.h>

#include <chrono>

#include "core/text.h"
#include "envelope/format.h"

namespace relay::envelope {
namespace {

void append_number(std::string& out, std::int64_t number) {
  const fmt::format_int text(number);
  out.append(text.data(), text.size());
}

void append_times(std::string& out, Timestamp at) {
  const std::int64_t micros = at.time_since_epoch().count();
  out.append("\"ts_ms\":");
  append_number(out, micros / 1000);
  out.append(",\"ts_us\":");
  append_number(out, micros);
  out.append(",\"ts_ns\":");
  append_number(out, micros * 1000);
}

void append_member(std::string& out, std::string_view name, std::string_view value) {
  out.append(",\"").append(name).append("\":");
  append_json_string(out, value);
}

void append_source(std::string& out, const RowFacts& row) {
  const RecordFacts& record = row.message.record;
  out.append("\"source\":{\"version\":\"1\",\"connector\":\"pgtrickle\"");
  append_member(out, "name", record.pipeline);
  out.push_back(',');
  append_times(out, record.at);
  out.append(record.full_refresh || record.snapshot ? ",\"snapshot\":\"true\""
                                                    : ",\"snapshot\":\"false\"");
  append_member(out, "db", record.shape->database);
  // Increases from change to change: the record, and the row in it.
  out.append(",\"sequence\":\"[\\\"");
  append_number(out, record.sequence);
  out.append("\\\",\\\"");
  append_number(out, row.ordinal);
  out.append("\\\"]\"");
  append_member(out, "schema", record.shape->schema);
  out.append(",\"table\":").append(record.stream_table);
  append_member(out, "id", row.message.id);
  out.push_back('}');
}

void append_row_or_null(std::string& out, const RowFacts& facts, std::uint32_t row) {
  if (row == kNoRow) {
    out.append("null");
  } else {
    facts.printer.append(out, row);
  }
}

std::string_view letter(const Change& change, bool snapshot) {
  if (snapshot) return "r";
  switch (change.op) {
    case Op::insert:
      return "c";
    case Op::update:
      return "u";
    case Op::remove:
      return "d";
    case Op::refresh:
      break;
  }
  return change.row() == kNoRow ? "t" : "r";
}

void append_row(std::string& out, const RowFacts& row) {
  out.append("{\"before\":");
  append_row_or_null(out, row, row.change.old_row);
  out.append(",\"after\":");
  append_row_or_null(out, row, row.change.new_row);
  out.push_back(',');
  append_source(out, row);
  out.append(",\"op\":\"").append(letter(row.change, row.message.record.snapshot)).append("\",");
  append_times(out, row.message.record.at);
  out.append(",\"transaction\":null}");
}

}  // namespace

constinit const Format kDebeziumFormat = {.name = "debezium",
                                          .content_type = "application/json",
                                          .delta = nullptr,
                                          .row = append_row,
                                          .event = nullptr,
                                          .headers = nullptr,
                                          .key_is_object = true};

}  // namespace relay::envelope
