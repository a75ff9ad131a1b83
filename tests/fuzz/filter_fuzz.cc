// A condition and a delta in one input, parted by a newline: compiling never crashes, and what
// compiles can be asked of any row, and through the whole encoder.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "core/arena.h"
#include "envelope/encoder.h"
#include "envelope/filter.h"

namespace {

using namespace relay;
using namespace relay::envelope;

void ask(const Filter& filter, std::string_view json) {
  Arena arena;
  JsonReader reader;
  Rows rows;
  std::string why;
  if (!reader.slice_array(arena.copy(json), rows)) return;
  for (std::size_t row = 0; row < rows.size(); ++row) {
    filter.test({&rows, row}, reader, row % 2 == 1, why);
  }
}

void encode(std::string_view filter, std::string_view json) {
  EncoderOptions options;
  options.filter = filter;
  options.columns = {"a"};
  options.subject_template = "{op}.{{ a }}";
  const auto encoder = Encoder::make(std::move(options));
  RecordBatch batch;
  Delta delta;
  delta.inserted = batch.arena.copy(json);
  delta.deleted = delta.inserted;
  Record record;
  record.content = delta;
  batch.add(std::move(record), std::make_shared<const TableShape>(TableShape{"t", {"a"}}));
  (*encoder)->encode(std::move(batch));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t newline = input.find('\n');
  const std::string_view text = input.substr(0, newline);
  const auto compiled = Filter::compile(text);
  if (!compiled || newline == std::string_view::npos) return 0;
  ask(*compiled, input.substr(newline + 1));
  encode(text, input.substr(newline + 1));
  return 0;
}
