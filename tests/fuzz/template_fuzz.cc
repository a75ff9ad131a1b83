// Template text and a row in one input, parted by a newline: compiling never crashes, and what
// compiles renders for any row.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/arena.h"
#include "envelope/template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace relay;
  using namespace relay::envelope;

  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t newline = input.find('\n');
  const auto compiled = Template::compile(input.substr(0, newline), "subject_template");
  if (!compiled) return 0;

  Arena arena;
  JsonReader reader;
  Rows rows;
  const bool has_row = newline != std::string_view::npos &&
                       reader.slice_object(arena.copy(input.substr(newline + 1)), rows);
  Variables variables;
  variables.set(Variable::stream_table, "orders");
  variables.set(Variable::schema, "shop");
  std::string out;
  compiled->render(out, variables, has_row ? RowView{&rows, 0} : RowView{}, reader, nullptr);
  return 0;
}
