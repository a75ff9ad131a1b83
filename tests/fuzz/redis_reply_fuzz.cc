// The bytes of a Redis connection in two pieces: replies, and of each the entries of a stream that
// it may hold. Where the bytes are cut is what the first byte says.

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "backends/redis/codec.h"
#include "backends/redis/entry_id.h"
#include "backends/redis/errors.h"
#include "backends/redis/event.h"
#include "mapping.h"

namespace {

using namespace relay;
using namespace relay::redis;

/// Takes the reply for an entry: its id, and an array of names and values.
void as_entry(const Reply& reply, std::uint8_t choice) {
  (void)parse_entry_id(reply.text);
  if (reply.is_error()) (void)refusal(reply.text, "key orders", "127.0.0.1:6379");
  for (const Reply& element : reply.elements) as_entry(element, choice);
  if (reply.elements.size() != 2 || !reply.elements[1].is_array()) return;
  const auto& fields = reply.elements[1].elements;
  Entry entry;
  entry.stream_key = "orders";
  entry.id = reply.elements[0].text;
  for (std::size_t i = 0; i + 1 < fields.size(); i += 2) {
    entry.fields.emplace_back(fields[i].text, fields[i + 1].text);
  }
  Arena arena;
  (void)to_record(entry, EventRules{}, fuzz::mapping_for(choice), arena);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::size_t cut = std::min<std::size_t>(data[0], bytes.size());
  ReplyReader reader;
  for (const std::string_view piece : {bytes.substr(0, cut), bytes.substr(cut)}) {
    reader.feed(piece);
    while (true) {
      const auto reply = reader.next();
      if (!reply) return 0;
      if (!*reply) break;
      as_entry(**reply, data[0]);
    }
  }
  return 0;
}
