#include "backends/webhook/oauth2.h"

#include <fmt/core.h>
#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <utility>
#include <vector>

#include "backends/webhook/verdict.h"
#include "core/base64.h"
#include "core/percent.h"
#include "core/text.h"
#include "http/url.h"

namespace relay::webhook {

namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr seconds kLongestLead = std::chrono::minutes(5);
constexpr seconds kLongestLifetime = std::chrono::hours(24 * 365);
constexpr nanoseconds kLongestPause = seconds(10);
constexpr nanoseconds kShortestPause = std::chrono::milliseconds(100);
/// A part of a token that is this long is hidden.
constexpr std::size_t kPart = 8;
/// More of an answer is never shown.
constexpr std::size_t kShown = 1024;

std::string encoded(std::string_view text) {
  std::string out;
  append_percent_encoded(out, text);
  return out;
}

std::string basic_credentials(const OAuth2Options& options) {
  return base64(fmt::format("{}:{}", encoded(options.client_id), encoded(options.client_secret)));
}

std::string endpoint(const OAuth2Options& options) {
  return fmt::format("the token endpoint {}", http::origin_of(options.token_url));
}

std::string_view remedy_of_refusal(std::string_view code) {
  if (code == "invalid_client") {
    return "look at oauth2_client_id and oauth2_client_secret; some servers want "
           "oauth2_client_auth = body";
  }
  if (code == "invalid_scope") return "look at oauth2_scope";
  if (code == "invalid_target") return "look at oauth2_audience";
  if (code == "unauthorized_client" || code == "unsupported_grant_type") {
    return "let the authorization server allow the client credentials grant for this client";
  }
  return "look at oauth2_token_url, oauth2_scope and oauth2_audience, and at the log of the "
         "authorization server";
}

Error not_granted(const http::Response& response, const OAuth2Options& options) {
  simdjson::dom::parser parser;
  const auto parsed = parser.parse(response.body.data(), response.body.size());
  const std::vector<std::string> secrets{options.client_secret, encoded(options.client_secret),
                                         basic_credentials(options)};
  const auto text = [&](const char* name) {
    std::string_view value;
    return parsed.error() || parsed[name].get(value) ? std::string() : excerpt(value, secrets);
  };
  const std::string code = text("error");
  const std::string description = text("error_description");
  Error error{
      ErrorClass::misconfigured,
      "oauth2_refused",
      fmt::format("{} answered {}{}{}{}{}", endpoint(options), response.status,
                  code.empty() ? "" : " ", code, description.empty() ? "" : ": ", description),
      std::string(remedy_of_refusal(code)),
      {}};
  if (response.status == 429) {
    error.error_class = ErrorClass::throttled;
    error.retry_after = response.retry_after;
    error.remedy = "it is asked again";
  } else if (response.status >= 500 || response.status == 408) {
    error.error_class = ErrorClass::transient;
    error.code = "oauth2_failed";
    error.remedy = "it is asked again; if this stays, look at the authorization server";
  }
  return error;
}

tl::unexpected<Error> bad_answer(const OAuth2Options& options, std::string_view what) {
  return fail(misconfigured("oauth2_answer", fmt::format("{} {}", endpoint(options), what),
                            "look at oauth2_token_url: it has to be the token endpoint of the "
                            "authorization server, and not a page for people"));
}

bool is_token(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

/// A number, or a text of digits, as some servers write it. Nothing: neither.
std::optional<double> number_of(simdjson::dom::element value) {
  double number = 0;
  if (!value.get(number)) return number;
  std::string_view text;
  std::int64_t whole = 0;
  if (value.get(text)) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), whole);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return static_cast<double>(whole);
}

}  // namespace

Result<void> check_oauth2(const OAuth2Options& options, bool allow_private) {
  const auto bad = [](std::string what, std::string remedy) {
    return fail(misconfigured("bad_oauth2", std::move(what), std::move(remedy)));
  };
  if (options.token_url.empty() || options.client_id.empty() || options.client_secret.empty()) {
    return bad("oauth2_token_url, oauth2_client_id and oauth2_client_secret belong together",
               "set all three, or no option of oauth2_");
  }
  const auto url = http::parse_url(options.token_url);
  if (!url) return fail(url.error().in_context("oauth2_token_url"));
  if (!url->user.empty() || options.token_url.find_first_of("{} ") != std::string::npos) {
    return bad("oauth2_token_url holds credentials, a space, or a template",
               "write it as https://host/path, and the credentials as oauth2_client_id and "
               "oauth2_client_secret");
  }
  if (url->scheme == "http" && !allow_private) {
    return bad("oauth2_token_url would get the client's secret unencrypted",
               "write https; allow_private = true allows http in the own network");
  }
  return {};
}

http::Request make_token_request(const OAuth2Options& options, std::chrono::milliseconds timeout) {
  http::Request request;
  request.url = options.token_url;
  request.timeout = timeout;
  request.headers.add("Accept", "application/json");
  request.headers.add("Content-Type", "application/x-www-form-urlencoded");
  std::string& body = request.owned_body;
  body = "grant_type=client_credentials";
  const auto add = [&](std::string_view name, std::string_view value) {
    if (!value.empty()) body += fmt::format("&{}={}", name, encoded(value));
  };
  add("scope", options.scope);
  add("audience", options.audience);
  if (options.client_auth == ClientAuth::body) {
    add("client_id", options.client_id);
    add("client_secret", options.client_secret);
  } else {
    request.headers.add("Authorization", "Basic " + basic_credentials(options));
  }
  return request;
}

Result<GrantedToken> read_token_answer(const http::Response& response,
                                       const OAuth2Options& options) {
  if (response.error) return fail(response.error->in_context("asking for an access token"));
  if (response.truncated) return bad_answer(options, "sent more than any answer with a token has");
  if (response.status < 200 || response.status > 299) return fail(not_granted(response, options));
  simdjson::dom::parser parser;
  const auto parsed = parser.parse(response.body.data(), response.body.size());
  simdjson::dom::object object;
  if (parsed.error() || parsed.get(object)) {
    return bad_answer(options, "answered with something else than a JSON object");
  }
  std::string_view text;
  if (object["access_token"].get(text)) return bad_answer(options, "gave no access_token");
  if (!is_token(text)) return bad_answer(options, "gave an access_token that no header can carry");
  GrantedToken granted{std::string(text), std::nullopt};
  if (!object["token_type"].get(text) && !equal_ignoring_case(text, "bearer")) {
    return bad_answer(options, "gave a token of another type than Bearer");
  }
  simdjson::dom::element lifetime;
  if (object["expires_in"].get(lifetime) || lifetime.is_null()) return granted;
  const auto number = number_of(lifetime);
  if (!number) return bad_answer(options, "gave an expires_in that is no number of seconds");
  if (*number < 1) return bad_answer(options, "gave a token that has expired at once (expires_in)");
  const double longest = static_cast<double>(kLongestLifetime.count());
  granted.lifetime = seconds(static_cast<std::int64_t>(std::min(*number, longest)));
  return granted;
}

const std::string* AccessToken::get(Time now) const {
  return usable_ && now < good_until_ ? &text_ : nullptr;
}

bool AccessToken::is_due(Time now) const {
  return !asked_at_ && (!get(now) || now >= renew_at_);
}

bool AccessToken::is_stale(Time now, std::chrono::milliseconds timeout) const {
  return asked_at_ && (!get(now) || now - *asked_at_ >= timeout);
}

void AccessToken::granted(GrantedToken token) {
  const Time asked_at = asked_at_.value_or(BootClock::now());
  asked_at_.reset();
  previous_ = std::exchange(text_, std::move(token.text));
  ++version_;
  usable_ = true;
  renew_at_ = good_until_ = Time::max();
  if (!token.lifetime) return;
  // It counts from the question: when the server issued it between that and the answer is unknown.
  const Time end = asked_at + *token.lifetime;
  const auto lead = std::min<nanoseconds>(kLongestLead, nanoseconds(*token.lifetime) / 4);
  renew_at_ = end - lead;
  good_until_ = end - std::min<nanoseconds>(lead / 2, seconds(5));
  pause_ = std::clamp<nanoseconds>(lead / 5, kShortestPause, kLongestPause);
}

void AccessToken::failed(Time now) {
  asked_at_.reset();
  if (get(now)) renew_at_ = now + pause_;
}

void AccessToken::refused(std::uint64_t version) {
  if (version == version_) usable_ = false;
}

void AccessToken::hide_in(std::string& text) const {
  const std::size_t end = std::min(text.size(), kShown);
  std::vector<bool> hidden(end);
  for (const std::string* token : {&text_, &previous_}) {
    const std::size_t length = std::min(kPart, token->size());
    for (std::size_t at = 0; length > 0 && at + length <= end; ++at) {
      if (token->find(text.data() + at, 0, length) == std::string::npos) continue;
      std::fill_n(hidden.begin() + static_cast<std::ptrdiff_t>(at), length, true);
    }
  }
  for (std::size_t at = 0; at < end; ++at) {
    if (hidden[at]) text[at] = '*';
  }
}

}  // namespace relay::webhook
