#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "backends/webhook/receiver_auth_kind.h"
#include "backends/webhook/receiver_request.h"
#include "backends/webhook/receiver_signature.h"
#include "core/error.h"

namespace relay::webhook {

/// The options of the authentication.
struct AuthOptions {
  AuthKind kind{};
  std::string bearer_token;
  std::string user;
  std::string password;
  std::string header;
  std::string value;  ///< of `header`
  std::string signature_secret;
  std::chrono::milliseconds tolerance{};
};

/// Whether a client may write. Secrets are compared in a time that tells nothing about them. Says
/// nothing but yes or no, so that a refusal teaches nothing. Any thread.
class ReceiverAuth {
 public:
  using Kind = AuthKind;

  ReceiverAuth() = default;  ///< every client may
  /// Misconfigured: a secret that is missing, or one that `auth` does not use.
  static Result<ReceiverAuth> make(const AuthOptions& options);

  Kind kind() const { return kind_; }
  bool signs() const { return scheme_ != nullptr; }  ///< clients send a signature, no secret
  /// The header of the secret or the signature, in lower case; may be empty.
  const std::string& secret_header() const { return header_; }

  /// What the headers say, before the body is read. A signature is only looked for.
  bool head_allowed(const ReceivedRequest& request) const;
  /// What the signature over the whole request says; true where there is none to check.
  bool body_allowed(const ReceivedRequest& request,
                    std::chrono::system_clock::time_point now) const;

  /// For the header WWW-Authenticate; empty: none.
  std::string_view challenge() const;

 private:
  Kind kind_ = Kind::none;
  const SignatureScheme* scheme_ = nullptr;
  std::string header_;                ///< where the secret or the signature is
  std::vector<std::string> secrets_;  ///< whole values of the header, or keys
  std::chrono::milliseconds tolerance_{};
};

}  // namespace relay::webhook
