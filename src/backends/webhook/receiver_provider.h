#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "backends/webhook/receiver_answer.h"
#include "backends/webhook/receiver_auth_kind.h"
#include "http/server/request.h"

namespace relay::webhook {

/// Whether clients of this kind are one provider (GitHub, Stripe, Slack), whose events are known.
bool is_provider(AuthKind kind);

/// What a provider's request says of its event. Empty: it does not say it.
struct ProviderEvent {
  std::string id;  ///< the same in each delivery of the event
  std::string type;
  std::string key;
};

/// `body` has Arena::kPadding readable bytes behind it.
ProviderEvent provider_event(AuthKind kind, const http::IncomingRequest& request,
                             std::string_view body);

/// Why a request of a provider is no event: its body is a form, or no JSON object.
std::optional<Refusal> check_provider_body(AuthKind kind, const http::IncomingRequest& request);

/// The answer to a request by which a provider tries the address out: GitHub's ping and Slack's
/// url_verification. It is no event. Nothing: this is another request.
std::optional<http::Answer> handshake_answer(AuthKind kind, const http::IncomingRequest& request);

}  // namespace relay::webhook
