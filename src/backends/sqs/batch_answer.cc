#include "backends/sqs/batch_answer.h"

#include <fmt/core.h>
#include <simdjson.h>

#include "backends/sqs/errors.h"

namespace relay::sqs {

namespace {

std::optional<std::size_t> entry_id(const simdjson::dom::element& entry, std::size_t count) {
  std::string_view id;
  if (entry["Id"].get(id) || id.size() != 1) return std::nullopt;
  const auto index = static_cast<std::size_t>(id[0] - '0');
  return index < count ? std::optional(index) : std::nullopt;
}

Error failure(const simdjson::dom::element& entry, std::string_view where) {
  std::string_view code = "Unknown";
  std::string_view message;
  bool sender_fault = false;
  if (entry["Code"].get(code)) code = "Unknown";
  if (entry["Message"].get(message)) message = {};
  if (entry["SenderFault"].get(sender_fault)) sender_fault = false;
  return service_error(where, code, message, sender_fault);
}

}  // namespace

Result<std::vector<std::optional<Error>>> parse_batch_answer(std::string_view body,
                                                             std::string_view where,
                                                             std::size_t count) {
  simdjson::dom::parser parser;
  const auto parsed = parser.parse(body.data(), body.size());
  if (parsed.error() || !parsed.is_object()) {
    return fail(ErrorClass::transient, "bad_answer",
                fmt::format("{}: its answer is no JSON object", where),
                "look at endpoint: does SQS answer there?");
  }
  const Error silent{ErrorClass::transient,
                     "no_answer",
                     fmt::format("{}: its answer leaves a message out", where),
                     "it is tried again",
                     {}};
  std::vector<std::optional<Error>> outcomes(count, silent);
  simdjson::dom::array entries;
  if (!parsed["Successful"].get(entries)) {
    for (const auto entry : entries) {
      if (const auto id = entry_id(entry, count)) outcomes[*id].reset();
    }
  }
  if (!parsed["Failed"].get(entries)) {
    for (const auto entry : entries) {
      if (const auto id = entry_id(entry, count)) outcomes[*id] = failure(entry, where);
    }
  }
  return outcomes;
}

}  // namespace relay::sqs
