#include "backends/webhook/options.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <utility>

#include "config/field_tables.h"
#include "config/tls.h"
#include "core/base64.h"
#include "core/text.h"
#include "http/url.h"

namespace relay::webhook {

namespace {

using config::Field;
using config::FieldType;

constexpr std::array kOwnFields = {
    Field{.name = "url",
          .meaning = "where requests go; may be a template: https://host/{stream_table}/{{ city }}",
          .required = true,
          .secret = true},
    Field{.name = "method",
          .type = FieldType::choice,
          .default_text = "POST",
          .meaning = "the requests' method",
          .choices = "POST,PUT"},
    Field{.name = "request_headers",
          .type = FieldType::map,
          .meaning =
              "headers of each request that may be secret, such as Authorization: no templates, "
              "and kept nowhere",
          .secret = true},
    Field{.name = "batch",
          .type = FieldType::boolean,
          .default_text = "false",
          .meaning = "send a JSON array of messages a request, instead of one message"},
    Field{.name = "batch_max_messages",
          .type = FieldType::integer,
          .default_text = "100",
          .meaning = "messages of one array at most",
          .min = 1,
          .max = 100000},
    Field{.name = "batch_max_bytes",
          .type = FieldType::bytes,
          .default_text = "1MiB",
          .meaning = "bytes of one array at most; a larger message goes alone",
          .min = 1,
          .max = 1073741824.0},
    Field{.name = "timeout",
          .type = FieldType::duration,
          .default_text = "10s",
          .meaning = "after that long without an answer a message is sent again, with the same id",
          .min = 0.01,
          .max = 3600},
    Field{.name = "connect_timeout",
          .type = FieldType::duration,
          .default_text = "5s",
          .meaning = "how long resolving the name and connecting may take",
          .min = 0.01,
          .max = 3600},
    Field{.name = "max_in_flight",
          .type = FieldType::integer,
          .default_text = "16",
          .meaning = "requests under way at once",
          .min = 1,
          .max = 10000},
    Field{.name = "success",
          .type = FieldType::list,
          .default_text = "2xx",
          .meaning = "statuses that mean delivered"},
    Field{.name = "retry_on_status",
          .type = FieldType::list,
          .default_text = "408,425,429,5xx",
          .meaning = "statuses after which a message is sent again"},
    Field{.name = "misconfigured_on_status",
          .type = FieldType::list,
          .default_text = "401,403,404",
          .meaning =
              "statuses that stop the pipeline until an operator changes something; any other "
              "4xx rejects the message"},
    Field{.name = "signature_secret",
          .meaning =
              "signs requests as Standard Webhooks says (HMAC-SHA256): whsec_ and base64, or "
              "any text; several, separated by spaces, while a secret is being replaced",
          .secret = true,
          .aliases = "signature,signing_secret"},
    Field{.name = "allow_private",
          .type = FieldType::boolean,
          .default_text = "false",
          .meaning = "allow addresses that are not public: loopback, private, link-local"},
    Field{.name = "bearer_token", .meaning = "token of the Authorization header", .secret = true},
    Field{.name = "user", .meaning = "user of basic authentication"},
    Field{.name = "password", .meaning = "password of user", .secret = true},
};

constexpr auto kSinkFields = config::joined(kOwnFields, config::kTlsFields);

// What a request says of itself, and what only its sender can say.
constexpr std::array<std::string_view, 8> kReservedHeaders = {
    "content-length",  "transfer-encoding", "host", "connection", "webhook-id", "webhook-timestamp",
    "idempotency-key", "webhook-signature"};

Result<void> read_headers(const config::Values& values, Options& options) {
  options.headers = values.map("request_headers");
  for (const auto& header : options.headers) {
    const std::string& name = header.first;
    const std::string& value = header.second;
    const bool reserved =
        std::any_of(kReservedHeaders.begin(), kReservedHeaders.end(),
                    [&](std::string_view other) { return equal_ignoring_case(name, other); });
    if (reserved || !http::is_header_name(name) || !http::is_header_value(value)) {
      return fail(misconfigured("bad_header",
                                fmt::format("request_headers: '{}' cannot be set", name),
                                "the names of a request's own headers are reserved; a value is one "
                                "line"));
    }
  }
  return {};
}

Result<void> read_statuses(const config::Values& values, StatusRules& rules) {
  const auto read = [&](std::string_view name, StatusSet& set) -> Result<void> {
    auto parsed = StatusSet::parse(values.list(name), name);
    if (!parsed) return fail(parsed.error());
    set = *parsed;
    return {};
  };
  if (auto done = read("success", rules.success); !done) return done;
  if (auto done = read("retry_on_status", rules.retry); !done) return done;
  return read("misconfigured_on_status", rules.misconfigured);
}

Result<void> read_signature(const config::Values& values, Options& options) {
  const std::string secrets = values.text("signature_secret");
  std::string_view rest = secrets;
  while (!rest.empty()) {
    const auto space = std::min(rest.find(' '), rest.size());
    if (const auto word = rest.substr(0, space); !word.empty()) {
      auto key = signing_key(word);
      if (!key) return fail(key.error());
      options.signing_keys.push_back(std::move(*key));
    }
    rest.remove_prefix(std::min(space + 1, rest.size()));
  }
  return {};
}

Result<void> read_security(const config::Values& values, const http::Url& url, Options& options) {
  http::ClientOptions& client = options.client;
  client.connect_timeout = values.duration("connect_timeout");
  client.max_connections = options.max_in_flight;
  client.allow_private = values.boolean("allow_private");
  client.user = values.has("user") ? values.text("user") : url.user;
  client.password = values.has("user") ? values.text("password") : url.password;
  options.bearer_token = values.text("bearer_token");
  if (auto read = config::read_tls(values, client); !read) return fail(read.error());
  if (!client.user.empty() && !options.bearer_token.empty()) {
    return fail(
        misconfigured("two_credentials", "both user and bearer_token are set", "set one of them"));
  }
  if (!http::is_header_value(options.bearer_token)) {
    return fail(misconfigured("bad_token", "bearer_token is more than one line",
                              "look at the line end of the file that it comes from"));
  }
  return {};
}

}  // namespace

std::vector<std::string> Options::secrets() const {
  std::vector<std::string> all{bearer_token, client.password};
  for (const auto& [name, value] : headers) {
    all.push_back(value);
    // "Bearer xyz": each word may come back alone.
    for (std::size_t at = value.find(' '); at != value.npos; at = value.find(' ', at + 1)) {
      all.push_back(value.substr(at + 1));
    }
  }
  std::erase_if(all, [](const std::string& secret) { return secret.size() < 4; });
  return all;
}

config::FieldTable sink_fields() {
  return kSinkFields;
}

std::vector<std::string> fixed_origins(const config::Values& values,
                                       const std::optional<std::string>& subject_template) {
  std::vector<std::string> origins;
  std::vector<std::string> addresses{values.text("url")};
  const bool absolute = subject_template && subject_template->find("://") != std::string::npos;
  if (absolute) addresses.push_back(*subject_template);
  if (subject_template && subject_template->starts_with('{')) return {};
  for (const std::string& address : addresses) {
    const auto url = http::parse_url(address);
    if (!url || url->origin().find('{') != std::string::npos) return {};
    origins.push_back(url->origin());
  }
  return origins;
}

Result<Options> parse_options(const config::Values& values) {
  Options options;
  const auto url = http::parse_url(values.text("url"));
  if (!url) return fail(url.error());
  options.origin = url->origin();
  options.base = url->without_credentials();
  options.method = values.text("method");
  options.batch = values.boolean("batch");
  options.batch_max_messages = static_cast<std::size_t>(values.integer("batch_max_messages"));
  options.batch_max_bytes = static_cast<std::size_t>(values.bytes("batch_max_bytes"));
  options.timeout = values.duration("timeout");
  options.max_in_flight = static_cast<std::size_t>(values.integer("max_in_flight"));
  if (auto read = read_headers(values, options); !read) return fail(read.error());
  if (auto read = read_statuses(values, options.statuses); !read) return fail(read.error());
  if (auto read = read_signature(values, options); !read) return fail(read.error());
  if (auto read = read_security(values, *url, options); !read) return fail(read.error());
  return options;
}

Result<std::string> default_subject(const config::Values& values) {
  const auto url = http::parse_url(values.text("url"));
  if (!url) return fail(url.error());
  return url->without_credentials();
}

Result<std::string> signing_key(std::string_view secret) {
  constexpr std::string_view kPrefix = "whsec_";
  if (!secret.starts_with(kPrefix)) return std::string(secret);
  auto key = base64_decoded(secret.substr(kPrefix.size()));
  if (!key || key->empty()) {
    return fail(misconfigured("bad_signature_secret",
                              "signature_secret: what follows whsec_ is no base64",
                              "write whsec_ and base64, or any other text"));
  }
  return *key;
}

}  // namespace relay::webhook
