// Rows or an event in each wire format, whole and by row: the encoder ends with messages, whatever
// the JSON is. The first byte chooses the format and the form of the record.

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

#include "envelope/encoder.h"

namespace {

using namespace relay;
using namespace relay::envelope;

constexpr std::array<std::string_view, 3> kFormats = {"native", "debezium", "cloudevents"};

RecordBatch batch_of(std::uint8_t form, std::string_view text) {
  RecordBatch batch;
  Record record;
  record.outbox_id = record.id = 7;
  record.pgt_id = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
  const std::size_t middle = text.find('\n');
  const std::string_view first = batch.arena.copy(text.substr(0, middle));
  const std::string_view second = middle == std::string_view::npos
                                      ? std::string_view()
                                      : batch.arena.copy(text.substr(middle + 1));
  if (form % 3 == 0) {
    Delta delta;
    delta.inserted = first;
    delta.deleted = second;
    record.content = delta;
  } else if (form % 3 == 1) {
    RowChange change;
    change.new_row = first;
    change.old_row = second;
    record.content = change;
  } else {
    Event event;
    event.payload = first;
    event.type = second;
    record.content = event;
  }
  batch.add(std::move(record), std::make_shared<const TableShape>(TableShape{"orders", {"id"}}));
  return batch;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  EncoderOptions options;
  options.wire_format = kFormats[data[0] % kFormats.size()];
  options.row_mode = (data[0] & 0x80) != 0;
  const auto encoder = Encoder::make(std::move(options));
  if (encoder) (*encoder)->encode(batch_of(static_cast<std::uint8_t>(data[0] / 3), text));
  return 0;
}
