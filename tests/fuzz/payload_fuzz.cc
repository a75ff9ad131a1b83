// A payload as an outbox holds it: taking it apart never reads beyond the text, and what it gives
// lies within the text. Putting columns into order moves bytes and changes none.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "outbox/column_order.h"
#include "outbox/payload_decoder.h"

namespace {

void check_within(std::string_view part, std::string_view whole) {
  if (part.empty()) return;
  if (part.data() < whole.data() || part.data() + part.size() > whole.data() + whole.size()) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A copy of its own, so that a read beyond its end is seen.
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto payload = relay::outbox::decode_payload(text)) {
    check_within(payload->inserted, text);
    check_within(payload->deleted, text);
    check_within(payload->refresh_mode, text);
  }
  check_within(relay::outbox::find_field(text, "v"), text);
  relay::outbox::ColumnOrder order({{"\"b\"", 1}, {"\"v\"", 0}, {"\"id\"", 3}, {"\"note\"", 2}});
  std::string moved = text;
  order.restore(moved.data(), moved.size());
  std::string before = text;
  std::sort(before.begin(), before.end());
  std::sort(moved.begin(), moved.end());
  if (moved != before) std::abort();
  return 0;
}
