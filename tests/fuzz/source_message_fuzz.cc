// A message of a topic, of a queue or of a file, as a line with its subject, one with its key, then
// its headers a line each, an empty line and the body: every source makes a record of it. The first
// byte chooses source and mapping.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/file/line_event.h"
#include "backends/kafka/event.h"
#include "backends/nats/ack_subject.h"
#include "backends/rabbitmq/event.h"
#include "mapping.h"

namespace {

using namespace relay;

struct Parts {
  std::string_view subject;
  std::string_view key;
  std::vector<std::pair<std::string_view, std::string_view>> headers;
  std::string_view body;
};

Parts parts_of(std::string_view rest) {
  Parts parts;
  parts.subject = fuzz::next_line(rest);
  parts.key = fuzz::next_line(rest);
  for (auto line = fuzz::next_line(rest); !line.empty(); line = fuzz::next_line(rest)) {
    const auto colon = std::min(line.find(':'), line.size());
    parts.headers.emplace_back(line.substr(0, colon),
                               line.substr(std::min(colon + 1, line.size())));
  }
  parts.body = rest;
  return parts;
}

void from_kafka(const Parts& parts, const FieldMapping& mapping) {
  kafka::Consumed consumed;
  consumed.topic = parts.subject;
  if (!parts.key.empty()) consumed.key = parts.key;
  if (!parts.body.empty()) consumed.value = parts.body;
  consumed.headers = parts.headers;
  Arena arena;
  (void)kafka::to_record(consumed, kafka::EventRules{}, mapping, arena);
}

void from_rabbitmq(const Parts& parts, const FieldMapping& mapping) {
  rabbitmq::Delivered message;
  message.routing_key = parts.subject;
  message.message_id = parts.key;
  for (const auto& [name, value] : parts.headers) message.headers.emplace_back(name, value);
  message.body = parts.body;
  Arena arena;
  (void)rabbitmq::to_record(message, rabbitmq::EventRules{}, mapping, arena);
}

void from_file(const Parts& parts, const FieldMapping& mapping) {
  file::Line line;
  line.text = parts.body;
  Arena arena;
  (void)file::is_blank(line.text);
  const file::LineRules rules{.id_scope = {}, .path = "in.jsonl"};
  (void)file::to_record(
      line, [] { return std::string("0"); }, rules, mapping, arena);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Parts parts = parts_of({reinterpret_cast<const char*>(data) + 1, size - 1});
  const FieldMapping& mapping = fuzz::mapping_for(data[0] / 4);
  switch (data[0] % 4) {
    case 0:
      from_kafka(parts, mapping);
      break;
    case 1:
      from_rabbitmq(parts, mapping);
      break;
    case 2:
      from_file(parts, mapping);
      break;
    default:
      (void)nats::parse_ack_subject(parts.subject);
  }
  return 0;
}
