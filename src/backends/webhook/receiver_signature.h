#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/webhook/receiver_auth_kind.h"
#include "backends/webhook/receiver_request.h"
#include "core/digest.h"

namespace relay::webhook {

/// What the headers of a signed request claim. Nothing of it is checked yet.
struct ClaimedSignature {
  std::string before_body;              ///< what the signature covers in front of the body
  std::vector<std::string> signatures;  ///< as the scheme writes them; one of them must be right
  std::optional<std::string> seconds;   ///< when it was signed; nothing: the scheme signs no time
};

/// How a kind of client signs its requests with HMAC-SHA256.
struct SignatureScheme {
  AuthKind kind;
  std::string_view header;  ///< where the signature is, in lower case
  /// Nothing: a header is missing, or given twice where it must be there once.
  std::optional<ClaimedSignature> (*read)(const ReceivedRequest& request);
  std::string (*write)(const Digest& digest);  ///< a digest as a signature
  /// The keys that the option `signature_secret` gives. Misconfigured: it gives none.
  Result<std::vector<std::string>> (*keys)(std::string_view secrets);
};

/// Null: clients of this kind sign nothing.
const SignatureScheme* signature_scheme(AuthKind kind);

}  // namespace relay::webhook
