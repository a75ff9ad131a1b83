#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "backends/webhook/receiver_request.h"
#include "config/option_table.h"
#include "core/error.h"

namespace relay::webhook {

/// How a client shows that it may write: the option `auth`.
enum class AuthKind { none, bearer, basic, header, hmac };
inline constexpr config::Choice<AuthKind> kAuthKinds[] = {{"none", AuthKind::none},
                                                          {"bearer", AuthKind::bearer},
                                                          {"basic", AuthKind::basic},
                                                          {"header", AuthKind::header},
                                                          {"hmac", AuthKind::hmac}};

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
  const std::string& secret_header() const { return header_; }  ///< in lower case; may be empty

  /// What the headers say, before the body is read. A signature is only looked for.
  bool head_allowed(const ReceivedRequest& request) const;
  /// What the signature over the whole request says; true where there is none to check.
  bool body_allowed(const ReceivedRequest& request,
                    std::chrono::system_clock::time_point now) const;

  /// For the header WWW-Authenticate; empty: none.
  std::string_view challenge() const;

 private:
  Kind kind_ = Kind::none;
  std::string header_;                ///< where the secret is
  std::vector<std::string> secrets_;  ///< whole values of the header, or keys
  std::chrono::milliseconds tolerance_{};
};

}  // namespace relay::webhook
