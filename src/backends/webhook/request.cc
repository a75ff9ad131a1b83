#include "backends/webhook/request.h"

#include <fmt/core.h>
#include <simdjson.h>

#include <algorithm>
#include <array>

#include "core/base64.h"
#include "core/digest.h"
#include "core/text.h"
#include "http/headers.h"
#include "http/url.h"

namespace relay::webhook {

namespace {

// What the body and the client decide.
constexpr std::array<std::string_view, 2> kNotPassedOn = {"content-type", "accept-encoding"};

constexpr std::array<std::string_view, 9> kOwn = {
    "idempotency-key",        "webhook-id",          "webhook-timestamp",
    "webhook-signature",      "pgtrickle-id",        "pgtrickle-op",
    "pgtrickle-stream-table", "pgtrickle-outbox-id", "pgtrickle-full-refresh"};

template <std::size_t N>
bool contains(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::any_of(names.begin(), names.end(),
                     [&](std::string_view other) { return equal_ignoring_case(name, other); });
}

bool passed_on(std::string_view name, const Options& options) {
  if (http::is_header_of_connection(name) || contains(kNotPassedOn, name) || contains(kOwn, name)) {
    return false;
  }
  const bool has_credentials =
      !options.bearer_token.empty() || !options.client.user.empty() || options.oauth2.in_use();
  if (has_credentials && equal_ignoring_case(name, "authorization")) return false;
  return std::none_of(options.headers.begin(), options.headers.end(),
                      [&](const auto& header) { return equal_ignoring_case(name, header.first); });
}

bool has_header(const Message& message, const Header& header) {
  return std::any_of(message.headers.begin(), message.headers.end(), [&](const Header& other) {
    return other.name == header.name && other.value == header.value;
  });
}

bool is_json(std::string_view text) {
  simdjson::dom::parser parser;
  return parser.parse(text.data(), text.size()).error() == simdjson::SUCCESS;
}

/// As it came; a broker that says nothing about it leaves it to the body.
std::string_view content_type_of(const Message& message) {
  if (!message.content_type.empty()) return message.content_type;
  return message.body.empty() || is_json(message.body) ? "application/json"
                                                       : "application/octet-stream";
}

std::string_view content_type_of_array(std::span<const Message> messages) {
  const bool events = std::ranges::all_of(messages, [](const Message& message) {
    return message.content_type.starts_with("application/cloudevents+json");
  });
  return events ? "application/cloudevents-batch+json" : "application/json";
}

SharedError rejected(const Message& message, std::string code, std::string what,
                     std::string remedy) {
  return share(Error{ErrorClass::rejected,
                     std::move(code),
                     fmt::format("message {}: {}", message.id, what),
                     std::move(remedy),
                     {}});
}

void add_own_headers(http::Headers& headers, std::string_view id, const Options& options,
                     std::string_view body, std::int64_t now) {
  const std::string signed_id = webhook_id(id);
  headers.add("Idempotency-Key", id);
  headers.add("webhook-id", signed_id);
  headers.add("webhook-timestamp", fmt::format("{}", now));
  if (!options.signing_keys.empty()) {
    headers.add("webhook-signature", signature(options.signing_keys, signed_id, now, body));
  }
  if (!options.bearer_token.empty()) {
    headers.add("Authorization", "Bearer " + options.bearer_token);
  }
  for (const auto& [name, value] : options.headers) headers.add(name, value);
}

bool sets(const Options& options, std::string_view name) {
  return std::any_of(options.headers.begin(), options.headers.end(),
                     [&](const auto& header) { return equal_ignoring_case(name, header.first); });
}

void add_message_headers(http::Headers& headers, const Message& message, const Options& options) {
  std::size_t own = 0;
  for_each_header(message, [&](std::string_view name, std::string_view value) {
    const bool is_own = own < kOwn.size() && name.starts_with("pgtrickle-") && contains(kOwn, name);
    if (is_own && own++ < 5 && !sets(options, name)) headers.add(name, value);
    if (!is_own && passed_on(name, options)) headers.add(name, value);
  });
}

}  // namespace

std::string batch_id(std::span<const Message> messages) {
  std::string ids;
  for (const Message& message : messages) {
    ids += message.id;
    ids += '\n';
  }
  return "batch-" + hex(bytes_of(sha256(ids))).substr(0, 32);
}

std::string webhook_id(std::string_view id) {
  std::string text;
  for (const char c : id) {
    if (c == '.') {
      text += "%2E";
    } else if (c == '%') {
      text += "%25";
    } else {
      text += c;
    }
  }
  return text;
}

std::string signature(std::span<const std::string> keys, std::string_view id,
                      std::int64_t timestamp, std::string_view body) {
  std::string text = fmt::format("{}.{}.", id, timestamp);
  text += body;
  std::string all;
  for (const std::string& key : keys) {
    if (!all.empty()) all += ' ';
    all += "v1,";
    all += base64(bytes_of(hmac_sha256(key, text)));
  }
  return all;
}

std::string array_of(std::span<const Message> messages) {
  std::string body;
  std::size_t size = 2;
  for (const Message& message : messages) size += message.body.size() + 1;
  body.reserve(size);
  body += '[';
  for (const Message& message : messages) {
    if (body.size() > 1) body += ',';
    body += message.body;
  }
  body += ']';
  return body;
}

Result<std::string> address_of(std::string_view subject, const Options& options) {
  std::string address(subject);
  if (subject.empty() || subject.starts_with('/') || subject.starts_with('?')) {
    address = options.base + std::string(subject);
  }
  const auto url = http::parse_url(address);
  const bool clean = std::all_of(address.begin(), address.end(), [](char c) {
    return static_cast<unsigned char>(c) > 0x20 && c != 0x7f;
  });
  if (!url || !clean || !url->user.empty()) {
    return fail(ErrorClass::rejected, "bad_address", "what it is addressed to is no URL",
                "look at url and subject_template");
  }
  const bool known = options.origins.empty() ||
                     std::find(options.origins.begin(), options.origins.end(), url->origin()) !=
                         options.origins.end();
  if (!known) {
    return fail(ErrorClass::rejected, "other_host",
                "it is addressed to a host that is neither that of url nor of subject_template",
                "discard it and send it anew, with a replay of its id");
  }
  return address;
}

SharedError refusal(const Message& message, const Options& options) {
  if (const auto address = address_of(message.subject, options); !address) {
    return rejected(message, address.error().code, address.error().message, address.error().remedy);
  }
  SharedError refused;
  for_each_header(message, [&](std::string_view name, std::string_view value) {
    if (!refused && (!http::is_header_name(name) || !http::is_header_value(value))) {
      refused = rejected(message, "bad_header",
                         fmt::format("the header '{}' cannot be sent over HTTP", name),
                         "header names are letters, digits and dashes; values are one line");
    }
  });
  if (refused || !options.batch) return refused;
  // What comes from a column of PostgreSQL is JSON already.
  if (message.outbox_id == 0 && !is_json(message.body)) {
    return rejected(message, "not_json", "its body is no JSON, and cannot be part of an array",
                    "set batch = false for such messages");
  }
  return nullptr;
}

http::Request make_request(std::span<const Message> messages, const Options& options,
                           std::int64_t now) {
  const Message& first = messages.front();
  http::Request request;
  request.method = options.method;
  request.url = *address_of(first.subject, options);
  request.timeout = options.timeout;
  if (!options.batch) {
    request.body = first.body;
    add_own_headers(request.headers, first.id, options, first.body, now);
    if (!sets(options, "content-type")) {
      request.headers.add("Content-Type", content_type_of(first));
    }
    add_message_headers(request.headers, first, options);
    return request;
  }
  request.owned_body = array_of(messages);
  const std::string id = batch_id(messages);
  add_own_headers(request.headers, id, options, request.owned_body, now);
  if (!sets(options, "content-type")) {
    request.headers.add("Content-Type", content_type_of_array(messages));
  }
  request.headers.add("pgtrickle-id", id);
  // Of the messages' own headers those that all of them have.
  for (const Header& header : first.headers) {
    const bool shared = std::all_of(messages.begin(), messages.end(), [&](const Message& message) {
      return has_header(message, header);
    });
    if (shared && passed_on(header.name, options)) request.headers.add(header.name, header.value);
  }
  return request;
}

http::Request make_probe(std::string_view method, const std::string& address,
                         const Options& options, std::int64_t now) {
  http::Request request;
  request.method = method;
  request.url = address;
  request.timeout = options.timeout;
  add_own_headers(request.headers, "pgtrickle-relay-check", options, {}, now);
  return request;
}

}  // namespace relay::webhook
