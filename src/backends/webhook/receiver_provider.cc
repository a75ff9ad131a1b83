#include "backends/webhook/receiver_provider.h"

#include <vector>

#include "backends/webhook/receiver_request.h"
#include "connector/header_object.h"
#include "core/arena.h"
#include "core/text.h"
#include "envelope/event_body.h"
#include "envelope/json_reader.h"

namespace relay::webhook {

namespace {

using Path = std::vector<std::string>;

/// What `path` leads to: a string without its quotes, a number as it stands. Empty: it leads to
/// nothing, or to something else.
std::string text_at(std::string_view body, const Path& path) {
  thread_local envelope::JsonReader reader;
  const std::string_view raw = trimmed(reader.find(body, path));
  if (raw.empty()) return {};
  if (raw.front() == '"') {
    std::string text;
    return reader.append_text(raw, text) ? as_text(text) : std::string();
  }
  const bool number = raw.front() == '-' || (raw.front() >= '0' && raw.front() <= '9');
  return number ? std::string(raw) : std::string();
}

/// The first of these that leads to a text.
std::string first_text_at(std::string_view body, const std::vector<Path>& paths) {
  for (const Path& path : paths) {
    if (std::string text = text_at(body, path); !text.empty()) return text;
  }
  return {};
}

http::Answer answer_of(std::string_view name, std::string_view value) {
  http::Answer answer{200, "application/json", "{", {}};
  append_json_string(answer.body, name);
  answer.body += ':';
  append_json_string(answer.body, value);
  answer.body += "}\n";
  return answer;
}

}  // namespace

bool is_provider(AuthKind kind) {
  return kind == AuthKind::github || kind == AuthKind::stripe || kind == AuthKind::slack;
}

ProviderEvent provider_event(AuthKind kind, const http::IncomingRequest& request,
                             std::string_view body) {
  body = trimmed(body);  // the reader of JSON begins at the brace
  switch (kind) {
    case AuthKind::github:
      return {header_text(request, "x-github-delivery"), header_text(request, "x-github-event"),
              first_text_at(body, {{"repository", "full_name"}, {"organization", "login"}})};
    case AuthKind::stripe:
      return {text_at(body, {"id"}), text_at(body, {"type"}),
              first_text_at(body, {{"data", "object", "id"}, {"related_object", "id"}})};
    case AuthKind::slack:
      return {text_at(body, {"event_id"}), first_text_at(body, {{"event", "type"}, {"type"}}),
              first_text_at(body, {{"event", "channel"}, {"team_id"}})};
    default:
      return {};
  }
}

std::optional<Refusal> check_provider_body(AuthKind kind, const http::IncomingRequest& request) {
  if (!is_provider(kind)) return std::nullopt;
  const std::string type = lower_case(request.header("content-type").value_or(""));
  if (type.empty() || !envelope::is_json_type(type)) {
    return Refusal{415, "content_type",
                   "events are taken as application/json; forms, such as commands and "
                   "interactions of Slack, are not"};
  }
  if (!trimmed(request.body).starts_with('{')) {
    return Refusal{400, "no_event", "an event is a JSON object, which the body is not"};
  }
  return std::nullopt;
}

std::optional<http::Answer> handshake_answer(AuthKind kind, const http::IncomingRequest& request) {
  const bool github = kind == AuthKind::github && request.header("x-github-event") == "ping";
  if (!github && kind != AuthKind::slack) return std::nullopt;
  Arena padded;
  const std::string_view body = padded.copy(trimmed(request.body));
  if (github) {
    // No signature covers the header; what it covers must say the same.
    if (text_at(body, {"zen"}).empty()) return std::nullopt;
    return answer_of("status", "pong");
  }
  if (text_at(body, {"type"}) != "url_verification") return std::nullopt;
  const std::string challenge = text_at(body, {"challenge"});
  if (challenge.empty()) return std::nullopt;
  return answer_of("challenge", challenge);
}

}  // namespace relay::webhook
