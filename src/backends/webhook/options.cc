#include "backends/webhook/options.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <utility>

#include "config/option_table.h"
#include "config/tls.h"
#include "core/base64.h"
#include "core/text.h"
#include "http/headers.h"
#include "http/proxy_options.h"
#include "http/url.h"

namespace relay::webhook {

namespace {

using config::FieldType;
using config::fills;
using config::fills_with;
using config::Option;

/// The sink's options, and what becomes several of them.
struct SinkValues : Options {
  http::Url url;
};

// What only the sender of a message can say.
constexpr std::array<std::string_view, 4> kReservedHeaders = {
    "webhook-id", "webhook-timestamp", "idempotency-key", "webhook-signature"};

using Headers = std::map<std::string, std::string>;

Result<Headers> headers_of(const Headers& headers) {
  for (const auto& header : headers) {
    const std::string& name = header.first;
    const std::string& value = header.second;
    const bool reserved =
        http::is_header_of_connection(name) ||
        std::any_of(kReservedHeaders.begin(), kReservedHeaders.end(),
                    [&](std::string_view other) { return equal_ignoring_case(name, other); });
    if (reserved || !http::is_header_name(name) || !http::is_header_value(value)) {
      return fail(
          misconfigured("bad_header", fmt::format("request_headers: '{}' cannot be set", name),
                        "the names of a request's own headers are reserved, those for a proxy "
                        "too (option proxy has its user and password); a value is one line"));
    }
  }
  return headers;
}

constexpr config::Choice<ClientAuth> kClientAuths[] = {{"basic", ClientAuth::basic},
                                                       {"body", ClientAuth::body}};

constexpr Option<SinkValues> kOwnOptions[] = {
    {{.name = "url",
      .meaning = "where requests go; may be a template: https://host/{stream_table}/{{ city }}",
      .required = true,
      .secret = true},
     fills_with<&http::parse_url, &SinkValues::url>},
    {{.name = "method",
      .type = FieldType::choice,
      .default_text = "POST",
      .meaning = "the requests' method",
      .choices = "POST,PUT"},
     fills<&Options::method>},
    {{.name = "request_headers",
      .type = FieldType::map,
      .meaning = "headers of each request that may be secret, such as Authorization: no templates, "
                 "and kept nowhere",
      .secret = true},
     fills_with<&headers_of, &Options::headers>},
    {{.name = "batch",
      .type = FieldType::boolean,
      .default_text = "false",
      .meaning = "send a JSON array of messages a request, instead of one message"},
     fills<&Options::batch>},
    {{.name = "batch_max_messages",
      .type = FieldType::integer,
      .default_text = "100",
      .meaning = "messages of one array at most",
      .min = 1,
      .max = 100000},
     fills<&Options::batch_max_messages>},
    {{.name = "batch_max_bytes",
      .type = FieldType::bytes,
      .default_text = "1MiB",
      .meaning = "bytes of one array at most; a larger message goes alone",
      .min = 1,
      .max = 1073741824.0},
     fills<&Options::batch_max_bytes>},
    {{.name = "timeout",
      .type = FieldType::duration,
      .default_text = "10s",
      .meaning = "after that long without an answer a message is sent again, with the same id",
      .min = 0.01,
      .max = 3600},
     fills<&Options::timeout>},
    {{.name = "connect_timeout",
      .type = FieldType::duration,
      .default_text = "5s",
      .meaning = "how long resolving the name and connecting may take",
      .min = 0.01,
      .max = 3600},
     fills<&Options::client, &http::ClientOptions::connect_timeout>},
    {{.name = "max_in_flight",
      .type = FieldType::integer,
      .default_text = "16",
      .meaning = "requests under way at once",
      .min = 1,
      .max = 10000},
     fills<&Options::max_in_flight>},
    {{.name = "success",
      .type = FieldType::list,
      .default_text = "2xx",
      .meaning = "statuses that mean delivered"},
     fills_with<&StatusSet::parse, &Options::statuses, &StatusRules::success>},
    {{.name = "retry_on_status",
      .type = FieldType::list,
      .default_text = "408,425,429,5xx",
      .meaning = "statuses after which a message is sent again"},
     fills_with<&StatusSet::parse, &Options::statuses, &StatusRules::retry>},
    {{.name = "misconfigured_on_status",
      .type = FieldType::list,
      .default_text = "401,403,404",
      .meaning = "statuses that stop the pipeline until an operator changes something; any other "
                 "4xx rejects the message"},
     fills_with<&StatusSet::parse, &Options::statuses, &StatusRules::misconfigured>},
    {{.name = "pause_on_status",
      .type = FieldType::list,
      .default_text = "410",
      .meaning = "statuses after which the pipeline sends nothing until an operator resumes it"},
     fills_with<&StatusSet::parse, &Options::statuses, &StatusRules::pause>},
    {{.name = "max_attempts",
      .type = FieldType::integer,
      .meaning = "a message that the server refused so often with a status of retry_on_status, "
                 "429 and 503 not counted, is rejected; not set: it is sent again for ever",
      .min = 1,
      .max = 1000000},
     fills<&Options::max_attempts>},
    {{.name = "signature_secret",
      .meaning = "signs requests as Standard Webhooks says (HMAC-SHA256): whsec_ and base64, or "
                 "any text; several, separated by spaces, while a secret is being replaced",
      .secret = true,
      .aliases = "signature,signing_secret"},
     fills_with<&signing_keys, &Options::signing_keys>},
    {{.name = "allow_private",
      .type = FieldType::boolean,
      .default_text = "false",
      .meaning = "allow addresses that are not public: loopback, private, link-local"},
     fills<&Options::client, &http::ClientOptions::allow_private>},
    {{.name = "bearer_token", .meaning = "token of the Authorization header", .secret = true},
     fills<&Options::bearer_token>},
    {{.name = "user", .meaning = "user of basic authentication"},
     fills<&Options::client, &http::ClientOptions::user>},
    {{.name = "password", .meaning = "password of user", .secret = true},
     fills<&Options::client, &http::ClientOptions::password>},
    {{.name = "oauth2_token_url",
      .meaning = "token endpoint that gives access tokens by OAuth 2.0 client credentials"},
     fills<&Options::oauth2, &OAuth2Options::token_url>},
    {{.name = "oauth2_client_id", .meaning = "client for which access tokens are asked"},
     fills<&Options::oauth2, &OAuth2Options::client_id>},
    {{.name = "oauth2_client_secret", .meaning = "secret of oauth2_client_id", .secret = true},
     fills<&Options::oauth2, &OAuth2Options::client_secret>},
    {{.name = "oauth2_client_auth",
      .type = FieldType::choice,
      .default_text = "basic",
      .meaning = "how the token endpoint gets id and secret: by basic authentication, or in the "
                 "body",
      .choices = "basic,body"},
     config::fills_choice<kClientAuths, &Options::oauth2, &OAuth2Options::client_auth>},
    {{.name = "oauth2_scope", .meaning = "scopes to ask for, separated by spaces"},
     fills<&Options::oauth2, &OAuth2Options::scope>},
    {{.name = "oauth2_audience", .meaning = "audience to ask for, where the server wants one"},
     fills<&Options::oauth2, &OAuth2Options::audience>},
};

constexpr auto kSinkOptions = config::joined<SinkValues>(
    kOwnOptions,
    config::inherited<SinkValues, config::within<&Options::client, http::kProxyOptions>>,
    config::inherited<SinkValues, config::within<&Options::client, config::kTlsOptions>>);
constexpr auto kSinkFields = config::fields_of(kSinkOptions);

Result<void> complete_credentials(const config::Values& values, SinkValues& options) {
  http::ClientOptions& client = options.client;
  if (!values.has("user")) {
    client.user = options.url.user;
    client.password = options.url.password;
  }
  if (auto checked = config::check_tls(client); !checked) return checked;
  if (!client.user.empty() && !options.bearer_token.empty()) {
    return fail(
        misconfigured("two_credentials", "both user and bearer_token are set", "set one of them"));
  }
  const OAuth2Options& oauth2 = options.oauth2;
  const bool has_oauth2 = oauth2.in_use() || !oauth2.client_id.empty() ||
                          !oauth2.client_secret.empty() || !oauth2.scope.empty() ||
                          !oauth2.audience.empty();
  if (has_oauth2) {
    if (auto checked = check_oauth2(oauth2, client.allow_private); !checked) return checked;
    const bool has_header = std::any_of(
        options.headers.begin(), options.headers.end(),
        [](const auto& header) { return equal_ignoring_case(header.first, "authorization"); });
    if (!client.user.empty() || !options.bearer_token.empty() || has_header) {
      return fail(misconfigured(
          "two_credentials", "besides oauth2_token_url there are other credentials for requests",
          "take away user, bearer_token, and Authorization of request_headers"));
    }
  }
  if (!http::is_header_value(options.bearer_token)) {
    return fail(misconfigured("bad_token", "bearer_token is more than one line",
                              "look at the line end of the file that it comes from"));
  }
  return {};
}

}  // namespace

std::vector<std::string> Options::secrets() const {
  std::vector<std::string> all{bearer_token, client.password, oauth2.client_secret};
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
  auto filled = config::filled<SinkValues>(kSinkOptions, values);
  if (!filled) return fail(filled.error());
  SinkValues& options = *filled;
  options.origin = options.url.origin();
  options.base = options.url.without_credentials();
  // One more, for requests for a token.
  options.client.max_connections = options.max_in_flight + (options.oauth2.in_use() ? 1 : 0);
  if (auto done = complete_credentials(values, options); !done) return fail(done.error());
  return Options(std::move(options));
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

Result<std::vector<std::string>> signing_keys(std::string_view secrets) {
  std::vector<std::string> keys;
  for (const std::string& secret : words(secrets)) {
    auto key = signing_key(secret);
    if (!key) return fail(key.error());
    keys.push_back(std::move(*key));
  }
  return keys;
}

}  // namespace relay::webhook
