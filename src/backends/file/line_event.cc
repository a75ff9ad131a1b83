#include "backends/file/line_event.h"

#include <fmt/core.h>
#include <simdjson.h>

#include <chrono>

#include "connector/inbound_event.h"
#include "connector/source_id.h"

namespace relay::file {

namespace {

/// What the line itself names, where it is a JSON object; empty: nothing.
struct Said {
  std::string_view id;
  std::string_view dedup_key;
  std::string_view type;
};

/// A text or a number; empty for anything else.
std::string_view as_text(simdjson::ondemand::value value) {
  simdjson::ondemand::json_type type;
  if (value.type().get(type) != simdjson::SUCCESS) return {};
  if (type == simdjson::ondemand::json_type::string) {
    std::string_view text;
    return value.get_string().get(text) == simdjson::SUCCESS ? text : std::string_view();
  }
  if (type != simdjson::ondemand::json_type::number) return {};
  std::string_view token = value.raw_json_token();
  while (!token.empty() && (token.back() == ' ' || token.back() == '\t')) token.remove_suffix(1);
  return token;
}

/// `line` has simdjson's padding behind it, as everything in an arena. The result is valid until
/// this thread reads the next line.
Said read(std::string_view line) {
  Said said;
  if (line.empty()) return said;
  thread_local simdjson::ondemand::parser parser;
  simdjson::ondemand::document document;
  simdjson::ondemand::object object;
  if (parser.iterate(line.data(), line.size(), line.size() + simdjson::SIMDJSON_PADDING)
              .get(document) != simdjson::SUCCESS ||
      document.get_object().get(object) != simdjson::SUCCESS) {
    return said;
  }
  for (auto field : object) {
    std::string_view name;
    simdjson::ondemand::value value;
    if (field.unescaped_key().get(name) != simdjson::SUCCESS ||
        field.value().get(value) != simdjson::SUCCESS) {
      return said;
    }
    std::string_view* const target = name == "id"           ? &said.id
                                     : name == "dedup_key"  ? &said.dedup_key
                                     : name == "event_type" ? &said.type
                                                            : nullptr;
    if (target != nullptr) *target = as_text(value);
  }
  return said;
}

SharedError too_long(const Line& line, const LineRules& rules) {
  return share(
      Error{ErrorClass::rejected,
            "too_large",
            fmt::format("the line at {} of {} has {} bytes, more than max_record_bytes ({})",
                        line.offset, rules.path, line.next - line.offset, rules.max_record_bytes),
            "raise max_record_bytes and read the file again, or correct the line",
            {}});
}

}  // namespace

std::uint32_t digest(std::string_view bytes) {
  std::uint32_t hash = 2166136261u;  // FNV-1a
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r") == std::string_view::npos;
}

Record to_record(const Line& line, const std::function<std::string()>& made_up_id,
                 const LineRules& rules, const FieldMapping& mapping, Arena& arena) {
  const std::string_view payload = arena.copy(line.text);
  const MappedMessage message{.subject = rules.path, .key = {}, .payload = payload, .header = {}};
  const Said said = line.too_long ? Said{} : read(payload);
  InboundEvent event(mapping, message, arena);
  event.set_id({}, [&] {
    const std::string_view said_id = said.id.empty() ? said.dedup_key : said.id;
    // One part, so that no line can name the id that is made up for another one.
    return said_id.empty() ? made_up_id() : rules.id_scope + id_part(said_id);
  });
  event.set_type({}, [&] { return said.type; });
  event.set_payload_in_arena(payload, {});  // a line that is not JSON is anything
  event.set_created_at(
      std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now()));
  Record record = std::move(event).record();
  if (line.too_long) record.refused = too_long(line, rules);
  return record;
}

}  // namespace relay::file
