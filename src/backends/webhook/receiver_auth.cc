#include "backends/webhook/receiver_auth.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <optional>

#include "core/base64.h"
#include "core/digest.h"
#include "core/text.h"

namespace relay::webhook {

namespace {

using Kind = ReceiverAuth::Kind;

/// The option that some kinds of authentication take their secret from.
struct SecretOption {
  std::string_view name;
  Kind kind;
  std::string AuthOptions::*secret;

  bool is_used_by(Kind other) const {
    return other == kind || (kind == Kind::hmac && signature_scheme(other) != nullptr);
  }
};
constexpr std::array kSecretOptions = {
    SecretOption{"bearer_token", Kind::bearer, &AuthOptions::bearer_token},
    SecretOption{"password", Kind::basic, &AuthOptions::password},
    SecretOption{"auth_value", Kind::header, &AuthOptions::value},
    SecretOption{"signature_secret", Kind::hmac, &AuthOptions::signature_secret}};

std::string_view name_of(Kind kind) {
  return std::ranges::find(kAuthKinds, kind, &config::Choice<Kind>::value)->name;
}

Result<void> check_secrets(const AuthOptions& options) {
  for (const SecretOption& option : kSecretOptions) {
    const bool there = !(options.*option.secret).empty();
    if (there == option.is_used_by(options.kind)) continue;
    return fail(ErrorClass::misconfigured, "auth",
                fmt::format("auth = {} {} {}", name_of(options.kind),
                            there ? "does not use" : "needs", option.name),
                there ? "set auth to what is wanted, or leave the secret out"
                      : fmt::format("give {}, as ${{env:NAME}} say", option.name));
  }
  return {};
}

/// "Bearer" and "Basic" are the same in any case; what follows is not.
std::optional<std::string_view> credentials(std::string_view value, std::string_view scheme) {
  if (value.size() <= scheme.size() || value[scheme.size()] != ' ') return std::nullopt;
  if (lower_case(value.substr(0, scheme.size())) != scheme) return std::nullopt;
  value.remove_prefix(scheme.size());
  value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
  return value;
}

/// Compares with every secret, in a time that does not depend on which of them it is, nor on their
/// lengths.
bool is_one_of(std::string_view text, const std::vector<std::string>& secrets) {
  bool found = false;
  for (const std::string& secret : secrets) found = same_secret(text, secret) || found;
  return found;
}

std::optional<std::int64_t> seconds_of(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

bool is_recent(std::int64_t seconds, std::chrono::system_clock::time_point now,
               std::chrono::milliseconds tolerance) {
  const auto current =
      std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count();
  const auto apart = seconds > current ? seconds - current : current - seconds;
  return apart <= std::chrono::duration_cast<std::chrono::seconds>(tolerance).count();
}

}  // namespace

Result<ReceiverAuth> ReceiverAuth::make(const AuthOptions& options) {
  if (auto checked = check_secrets(options); !checked) return fail(checked.error());
  ReceiverAuth auth;
  auth.kind_ = options.kind;
  auth.scheme_ = signature_scheme(options.kind);
  auth.tolerance_ = options.tolerance;
  if (auth.kind_ == Kind::bearer) auth.secrets_ = words(options.bearer_token);
  if (auth.kind_ == Kind::header) auth.secrets_ = words(options.value);
  if (auth.kind_ == Kind::basic) {
    auth.secrets_ = {fmt::format("{}:{}", options.user, options.password)};
  }
  if (auth.scheme_) {
    auto keys = auth.scheme_->keys(options.signature_secret);
    if (!keys) return fail(keys.error());
    auth.secrets_ = std::move(*keys);
    auth.header_ = auth.scheme_->header;
  }
  if (auth.kind_ != Kind::none && auth.secrets_.empty()) {
    return fail(ErrorClass::misconfigured, "auth", "the secret of auth is blank",
                "give a secret that holds more than spaces");
  }
  if (auth.kind_ == Kind::header) auth.header_ = lower_case(options.header);
  return auth;
}

bool ReceiverAuth::head_allowed(const ReceivedRequest& request) const {
  if (kind_ == Kind::none) return true;
  if (scheme_) return request.header(scheme_->header).has_value();
  if (kind_ == Kind::header) {
    const auto value = request.header(header_);
    return value && is_one_of(*value, secrets_);
  }
  const auto value = request.header("authorization");
  if (!value) return false;
  if (kind_ == Kind::bearer) {
    const auto token = credentials(*value, "bearer");
    return token && is_one_of(*token, secrets_);
  }
  const auto encoded = credentials(*value, "basic");
  const auto pair = encoded ? base64_decoded(*encoded) : std::nullopt;
  return pair && is_one_of(*pair, secrets_);
}

bool ReceiverAuth::body_allowed(const ReceivedRequest& request,
                                std::chrono::system_clock::time_point now) const {
  if (!scheme_) return true;
  const auto claimed = scheme_->read(request);
  if (!claimed) return false;
  if (claimed->seconds) {
    const auto seconds = seconds_of(*claimed->seconds);
    if (!seconds || !is_recent(*seconds, now, tolerance_)) return false;
  }
  const std::string content = claimed->before_body + request.body;
  std::vector<std::string> right;
  for (const std::string& key : secrets_) {
    right.push_back(scheme_->write(hmac_sha256(key, content)));
  }
  bool found = false;
  for (const std::string& given : claimed->signatures) found = is_one_of(given, right) || found;
  return found;
}

std::string_view ReceiverAuth::challenge() const {
  if (kind_ == Kind::bearer) return "Bearer realm=\"inbox\"";
  if (kind_ == Kind::basic) return "Basic realm=\"inbox\", charset=\"UTF-8\"";
  return {};
}

}  // namespace relay::webhook
