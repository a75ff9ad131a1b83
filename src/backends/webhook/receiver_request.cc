#include "backends/webhook/receiver_request.h"

#include <algorithm>
#include <array>

#include "backends/webhook/receiver_provider.h"
#include "connector/header_object.h"
#include "connector/inbound_event.h"
#include "core/digest.h"
#include "core/percent.h"
#include "core/text.h"
#include "envelope/event_body.h"
#include "envelope/json_reader.h"
#include "http/headers.h"

namespace relay::webhook {

namespace {

// Secrets of the sender.
constexpr std::array<std::string_view, 3> kNotPassedOn = {"authorization", "cookie",
                                                          "webhook-signature"};

bool is_json(std::string_view body) {
  thread_local envelope::JsonReader reader;
  Arena padded;
  return reader.valid(padded.copy(body));
}

std::string_view last_part(std::string_view path) {
  while (path.ends_with('/')) path.remove_suffix(1);
  return path.substr(path.rfind('/') + 1);
}

bool passed_on(std::string_view name, const EventRules& rules) {
  return name != rules.secret_header && !http::is_header_of_connection(name) &&
         std::find(kNotPassedOn.begin(), kNotPassedOn.end(), name) == kNotPassedOn.end();
}

/// The headers that are passed on, each name once.
std::vector<std::pair<std::string_view, std::string>> headers_of(const ReceivedRequest& request,
                                                                 const EventRules& rules) {
  std::vector<std::pair<std::string_view, std::string>> values;
  for (const auto& [name, value] : request.headers) {
    const auto same = [&wanted = name](const auto& had) { return had.first == wanted; };
    if (!passed_on(name, rules) || std::any_of(values.begin(), values.end(), same)) continue;
    values.emplace_back(name, request.header(name).value_or(value));
  }
  return values;
}

/// PostgreSQL's indexes hold no longer id. A digest tells duplicates as well.
constexpr std::size_t kLongestId = 1000;
std::string digest_of(std::string_view id) {
  return "sha256:" + hex(bytes_of(sha256(id)));
}

/// What the client announces; without an announcement, what the body is.
std::string content_type_of(const ReceivedRequest& request) {
  const std::string announced = request.header("content-type").value_or("");
  if (!announced.empty()) return as_text(announced);
  return is_json(request.body) ? "application/json" : "application/octet-stream";
}

}  // namespace

std::optional<std::string> path_of(std::string_view target) {
  if (target.starts_with("http://") || target.starts_with("https://")) {
    const auto slash = target.find('/', target.find("//") + 2);
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  }
  target = target.substr(0, target.find_first_of("?#"));
  if (!target.starts_with('/')) return std::nullopt;
  return percent_decoded(target);
}

bool is_below(std::string_view path, std::string_view base) {
  if (base == "/") return path.starts_with('/');
  return path.starts_with(base) && (path.size() == base.size() || path[base.size()] == '/');
}

std::optional<Refusal> check_head(const ReceivedRequest& request, std::string_view base_path) {
  const auto path = path_of(request.target);
  if (!path) return Refusal{400, "bad_path", "the path cannot be read"};
  if (!is_below(*path, base_path)) {
    return Refusal{404, "not_found", "nothing is received at this path"};
  }
  if (request.method != "POST" && request.method != "PUT") {
    return Refusal{405, "method_not_allowed", "messages come by POST or PUT"};
  }
  const std::string coding = lower_case(request.header("content-encoding").value_or("identity"));
  if (coding != "identity") {
    return Refusal{415, "content_encoding", "bodies are taken as they are, not compressed"};
  }
  return std::nullopt;
}

std::string header_text(const ReceivedRequest& request, std::string_view name) {
  return as_text(trimmed(request.header(name).value_or("")));
}

std::optional<Refusal> check_body(const ReceivedRequest& request) {
  const std::string type = lower_case(request.header("content-type").value_or(""));
  if (type.empty() || !envelope::is_json_type(type) || is_json(request.body)) return std::nullopt;
  return Refusal{400, "not_json",
                 request.body.empty() ? "the content type says JSON, and there is no body"
                                      : "the content type says JSON, which the body is not"};
}

namespace {

/// The id that a client gave by a header. Empty: it gave none.
std::string client_id(const ReceivedRequest& request, const EventRules& rules) {
  const bool signed_ids = rules.auth == AuthKind::hmac;
  // A client that replays a signed request could choose every other header.
  if (std::string id = signed_ids ? std::string() : header_text(request, "pgtrickle-id");
      !id.empty()) {
    return id;
  }
  for (const std::string_view name : {"idempotency-key", "webhook-id"}) {
    if (signed_ids && name != "webhook-id") continue;
    if (const std::string id = header_text(request, name); !id.empty()) return rules.id_scope + id;
  }
  return {};
}

/// The id that the sender gave. Empty: it gave none.
std::string given_id(const ReceivedRequest& request, const EventRules& rules,
                     const ProviderEvent& said) {
  if (!is_provider(rules.auth)) return client_id(request, rules);
  return said.id.empty() ? std::string() : rules.id_scope + said.id;
}

std::string given_type(const ReceivedRequest& request, const EventRules& rules,
                       const ProviderEvent& said) {
  if (is_provider(rules.auth)) return said.type;
  return header_text(request, "x-event-type");
}

}  // namespace

Record to_record(const ReceivedRequest& request, const EventRules& rules,
                 const FieldMapping& mapping, std::string_view new_id, Arena& arena) {
  const std::string path = as_text(path_of(request.target).value_or("/"));
  const std::string_view body = arena.copy(request.body);
  const ProviderEvent said = provider_event(rules.auth, request, body);
  const MappedMessage mapped{.subject = path,
                             .key = said.key,
                             .payload = body,
                             .header = [&](std::string_view name) -> std::optional<std::string> {
                               const std::string wanted = lower_case(name);
                               if (!passed_on(wanted, rules)) return std::nullopt;
                               const auto value = request.header(wanted);
                               return value ? std::optional(as_text(*value)) : std::nullopt;
                             }};
  InboundEvent event(mapping, mapped, arena);
  const auto id = event.set_id({}, [&] {
    std::string given = given_id(request, rules, said);
    return given.empty() ? std::string(new_id) : given;
  });
  event.set_type({}, [&] {
    std::string type = given_type(request, rules, said);
    return type.empty() ? std::string(last_part(path)) : type;
  });
  event.set_payload_in_arena(body, content_type_of(request));
  event.set_created_at(request.received);
  const auto headers = headers_of(request, rules);
  for (const auto& [name, value] : headers) event.add_header(name, value);
  Record record = std::move(event).record();
  if (id.size() > kLongestId) std::get<Event>(record.content).id = arena.copy(digest_of(id));
  return record;
}

}  // namespace relay::webhook
