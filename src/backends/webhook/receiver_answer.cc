#include "backends/webhook/receiver_answer.h"

#include "core/text.h"

namespace relay::webhook {

namespace {

constexpr std::string_view kRetryAfter = "5";

}  // namespace

Refusal not_now(std::string_view why) {
  return Refusal{503, "unavailable", std::string(why)};
}

http::Answer committed() {
  return {200, "application/json", "{\"status\":\"committed\"}\n", {}};
}

http::Answer refused(const Refusal& refusal, std::string_view challenge) {
  http::Answer answer{refusal.status, "application/json", "{\"error\":", {}};
  append_json_string(answer.body, refusal.code);
  answer.body.append(",\"message\":");
  append_json_string(answer.body, refusal.message);
  answer.body.append("}\n");
  if (refusal.status == 503) answer.headers.emplace_back("Retry-After", kRetryAfter);
  if (refusal.status == 405) answer.headers.emplace_back("Allow", "POST, PUT");
  if (refusal.status == 401 && !challenge.empty()) {
    answer.headers.emplace_back("WWW-Authenticate", challenge);
  }
  return answer;
}

}  // namespace relay::webhook
