#include "outbox/payload_decoder.h"

#include <fmt/core.h>
#include <simdjson.h>

#include <charconv>
#include <string>
#include <system_error>

#include "outbox/json_scanner.h"

namespace relay::outbox {

namespace {

constexpr std::string_view kVersion = "1";
constexpr std::string_view kRemedy = "whatever writes this outbox must write payloads of version 1";

/// Null and no rows at all are the same.
bool take_rows(std::string_view raw, std::string_view& rows) {
  if (raw == "null") return true;
  if (raw.front() != '[') return false;
  if (raw.find_first_not_of(" \t\r\n", 1) != raw.size() - 1) rows = raw;
  return true;
}

std::string_view unquoted(std::string_view raw) {
  const bool quoted = raw.size() >= 2 && raw.front() == '"';
  return quoted ? raw.substr(1, raw.size() - 2) : std::string_view();
}

/// A measurement, perhaps with a fraction: no reason to refuse the rows, whatever it is.
std::int64_t milliseconds(std::string_view raw) {
  std::int64_t value = -1;
  const auto parsed = std::from_chars(raw.data(), raw.data() + raw.size(), value);
  return parsed.ec == std::errc() && value >= 0 ? value : -1;
}

struct Decoded {
  Payload payload;
  std::string_view version;
  std::string_view bad_field;
};

bool take_field(std::string_view name, std::string_view value, Decoded& decoded) {
  Payload& payload = decoded.payload;
  if (name == "v") {
    decoded.version = value;
  } else if (name == "inserted" || name == "deleted") {
    auto& rows = name == "inserted" ? payload.inserted : payload.deleted;
    if (!take_rows(value, rows)) decoded.bad_field = name;
  } else if (name == "refresh_mode") {
    payload.refresh_mode = unquoted(value);
  } else if (name == "refresh_duration_ms") {
    payload.refresh_duration_ms = milliseconds(value);
  } else if (name == "full_refresh") {
    payload.full_refresh = value == "true";
  } else if (name == "claim_check") {
    payload.claim_check = value == "true";
  } else if (name == "key_columns") {
    payload.key_columns = value;
    if (value.front() != '[') decoded.bad_field = name;
  }
  return decoded.bad_field.empty();
}

tl::unexpected<Error> malformed(std::string_view why) {
  return fail(ErrorClass::rejected, "payload_malformed",
              fmt::format("the outbox row's payload cannot be read: {}", why),
              std::string(kRemedy));
}

}  // namespace

Result<Payload> decode_payload(std::string_view text) {
  Decoded decoded;
  const bool read = for_each_member(text, [&](std::string_view name, std::string_view value) {
    return take_field(name, value, decoded);
  });
  if (!decoded.version.empty() && decoded.version != kVersion) {
    constexpr std::size_t kShown = 20;
    return fail(ErrorClass::rejected, "payload_version",
                fmt::format("the outbox row's payload has version {}, which this relay does not "
                            "know (it knows {})",
                            decoded.version.substr(0, kShown), kVersion),
                "upgrade the relay, then replay the row");
  }
  if (!decoded.bad_field.empty()) {
    return malformed(fmt::format("\"{}\" is not an array", decoded.bad_field));
  }
  if (!read) return malformed("it is not a JSON object");
  if (decoded.version.empty()) return malformed("it has no version");
  return decoded.payload;
}

bool read_texts(std::string_view array, std::vector<std::string>& texts) {
  simdjson::dom::parser parser;
  simdjson::dom::array elements;
  if (parser.parse(array.data(), array.size()).get(elements)) return false;
  for (const simdjson::dom::element element : elements) {
    std::string_view text;
    if (element.get(text)) return false;
    texts.emplace_back(text);
  }
  return true;
}

std::string_view find_field(std::string_view object, std::string_view name) {
  std::string_view found;
  for_each_member(object, [&](std::string_view field, std::string_view value) {
    if (field == name) found = value;
    return found.empty();
  });
  return found;
}

}  // namespace relay::outbox
