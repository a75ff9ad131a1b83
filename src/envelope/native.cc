// The relay's own envelopes. All keys are always present and in this order; a value that is unknown
// or absent is null, so that all messages of a kind have one shape.

#include <fmt/format.h>

#include "core/text.h"
#include "envelope/format.h"

namespace relay::envelope {
namespace {

void append_number(std::string& out, std::int64_t number) {
  const fmt::format_int text(number);
  out.append(text.data(), text.size());
}

void append_head(std::string& out, const RecordFacts& record) {
  out.append("{\"stream_table\":");
  out.append(record.stream_table);
  out.append(",\"sequence\":");
  append_number(out, record.sequence);
  out.append(",\"timestamp\":\"");
  append_timestamp(out, record.at);
  out.append("\"");
}

// Begins behind a brace, and ends the metadata and the envelope.
void append_tail(std::string& out, const RecordFacts& record, std::string_view id, int part,
                 bool final) {
  out.append("\"id\":");
  append_json_string(out, id);
  if (record.full_refresh) out.append(",\"full_refresh\":true");
  if (record.snapshot) out.append(",\"snapshot\":true");
  if (part > 0) {
    out.append(",\"part\":");
    append_number(out, part);
    out.append(final ? ",\"final\":true" : ",\"final\":false");
  }
  out.append("}}");
}

void append_delta(std::string& out, const DeltaFacts& delta) {
  const RecordFacts& record = delta.message.record;
  append_head(out, record);
  out.append(",\"delta\":{\"inserted\":");
  delta.inserted.append(out);
  out.append(",\"deleted\":");
  delta.deleted.append(out);
  out.append("},\"metadata\":{\"refresh_mode\":");
  if (record.refresh_mode.empty()) {
    out.append("null");
  } else {
    append_json_string(out, record.refresh_mode);
  }
  out.append(",\"refresh_duration_ms\":");
  if (record.refresh_duration_ms < 0) {
    out.append("null");
  } else {
    append_number(out, record.refresh_duration_ms);
  }
  out.append(",\"delta_rows\":");
  append_number(out, delta.rows);
  out.push_back(',');
  append_tail(out, record, delta.message.id, delta.part, delta.final);
}

void append_row_or_null(std::string& out, const RowPrinter& printer, std::uint32_t row) {
  if (row == kNoRow) {
    out.append("null");
  } else {
    printer.append(out, row);
  }
}

void append_row(std::string& out, const RowFacts& row) {
  append_head(out, row.message.record);
  out.append(",\"op\":\"");
  out.append(to_string(row.change.op));
  out.append("\",\"key\":");
  if (row.change.row() == kNoRow) {
    out.append("null");
  } else {
    row.printer.append_key(out, row.change.row());
  }
  out.append(",\"new\":");
  append_row_or_null(out, row.printer, row.change.new_row);
  out.append(",\"old\":");
  append_row_or_null(out, row.printer, row.change.old_row);
  out.append(",\"metadata\":{");
  append_tail(out, row.message.record, row.message.id, 0, true);
}

}  // namespace

constinit const Format kNativeFormat = {"native", "application/json", append_delta, append_row};

}  // namespace relay::envelope
