#include "backends/webhook/receiver_signature.h"

#include <fmt/core.h>

#include <algorithm>

#include "backends/webhook/options.h"
#include "core/base64.h"
#include "core/text.h"

namespace relay::webhook {

namespace {

constexpr std::size_t kShortestSecret = 8;

// Standard Webhooks: https://www.standardwebhooks.com

std::optional<ClaimedSignature> read_standard(const ReceivedRequest& request) {
  const auto id = request.header("webhook-id");
  const auto seconds = request.header("webhook-timestamp");
  const auto signatures = request.header("webhook-signature");
  if (!id || id->empty() || !seconds || !signatures) return std::nullopt;
  return ClaimedSignature{*id + "." + *seconds + ".", words(*signatures), seconds};
}

std::string write_standard(const Digest& digest) {
  return "v1," + base64(bytes_of(digest));
}

/// The keys of a provider, which takes the text as it is. A user may type a secret with spaces in
/// there: its words would be several secrets here, and a short one can be guessed.
Result<std::vector<std::string>> provider_keys(std::string_view secrets) {
  std::vector<std::string> keys = words(secrets);
  for (const std::string& key : keys) {
    if (key.size() >= kShortestSecret) continue;
    return fail(misconfigured(
        "bad_signature_secret",
        fmt::format("signature_secret holds a secret of fewer than {} characters; a space begins "
                    "another secret",
                    kShortestSecret),
        "choose a long random secret without spaces, there and here"));
  }
  return keys;
}

// https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries

std::optional<ClaimedSignature> read_github(const ReceivedRequest& request) {
  const auto signature = request.header("x-hub-signature-256");
  if (!signature) return std::nullopt;
  return ClaimedSignature{{}, {*signature}, std::nullopt};
}

std::string write_github(const Digest& digest) {
  return "sha256=" + hex(bytes_of(digest));
}

// https://docs.stripe.com/webhooks#verify-manually

/// "t=1492774577,v1=5257a8…,v1=…": of the signatures only those of v1 count.
std::optional<ClaimedSignature> read_stripe(const ReceivedRequest& request) {
  const auto header = request.header("stripe-signature");
  if (!header) return std::nullopt;
  ClaimedSignature claimed;
  std::string_view rest = *header;
  while (!rest.empty()) {
    const auto comma = std::min(rest.find(','), rest.size());
    const std::string_view element = trimmed(rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    if (element.starts_with("v1=")) claimed.signatures.emplace_back(element.substr(3));
    if (!element.starts_with("t=")) continue;
    if (claimed.seconds) return std::nullopt;  // which one is signed is not clear
    claimed.seconds = element.substr(2);
  }
  if (!claimed.seconds) return std::nullopt;
  claimed.before_body = *claimed.seconds + ".";
  return claimed;
}

std::string write_stripe(const Digest& digest) {
  return hex(bytes_of(digest));
}

// https://docs.slack.dev/authentication/verifying-requests-from-slack

std::optional<ClaimedSignature> read_slack(const ReceivedRequest& request) {
  const auto signature = request.header("x-slack-signature");
  const auto seconds = request.header("x-slack-request-timestamp");
  if (!signature || !seconds) return std::nullopt;
  return ClaimedSignature{"v0:" + *seconds + ":", {*signature}, seconds};
}

std::string write_slack(const Digest& digest) {
  return "v0=" + hex(bytes_of(digest));
}

constexpr SignatureScheme kSchemes[] = {
    {AuthKind::hmac, "webhook-signature", &read_standard, &write_standard, &signing_keys},
    {AuthKind::github, "x-hub-signature-256", &read_github, &write_github, &provider_keys},
    {AuthKind::stripe, "stripe-signature", &read_stripe, &write_stripe, &provider_keys},
    {AuthKind::slack, "x-slack-signature", &read_slack, &write_slack, &provider_keys}};

}  // namespace

const SignatureScheme* signature_scheme(AuthKind kind) {
  const auto found = std::ranges::find(kSchemes, kind, &SignatureScheme::kind);
  return found == std::end(kSchemes) ? nullptr : found;
}

}  // namespace relay::webhook
