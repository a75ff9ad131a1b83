#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/lease.h"
#include "http/client.h"

namespace relay::webhook {

/// How a client shows who it is (RFC 6749, section 2.3.1).
enum class ClientAuth { basic, body };

/// Where and as which client access tokens are asked for. Not in use without `token_url`.
struct OAuth2Options {
  std::string token_url;
  std::string client_id;
  std::string client_secret;
  ClientAuth client_auth = ClientAuth::basic;
  std::string scope;
  std::string audience;

  bool in_use() const { return !token_url.empty(); }
};

/// Misconfigured: options that do not fit together, or a URL that no secret may be sent to.
Result<void> check_oauth2(const OAuth2Options& options, bool allow_private);

/// What a token endpoint gave.
struct GrantedToken {
  std::string text;
  std::optional<std::chrono::seconds> lifetime;  ///< nothing: it did not say
};

/// The request of the client credentials grant (RFC 6749, section 4.4).
http::Request make_token_request(const OAuth2Options& options, std::chrono::milliseconds timeout);

/// What became of that request. The error never shows the secret or a token.
Result<GrantedToken> read_token_answer(const http::Response& response,
                                       const OAuth2Options& options);

/// Keeps an access token, and knows when the next one has to be asked for. Pure; one thread.
class AccessToken {
 public:
  using Time = BootClock::time_point;

  /// The token to send now; null: there is none that is still good.
  const std::string* get(Time now) const;
  /// Which token that is: it changes with each one that is granted.
  std::uint64_t version() const { return version_; }

  /// A request should begin: there is no good token, or the one there is ends soon.
  bool is_due(Time now) const;
  bool is_asked_for() const { return asked_at_.has_value(); }
  /// Nothing can be expected of that request: it is old, or nothing can be sent without its answer.
  bool is_stale(Time now, std::chrono::milliseconds timeout) const;
  void ask(Time now) { asked_at_ = now; }
  void granted(GrantedToken token);
  /// A token that is still good is used on, and the next request waits a little.
  void failed(Time now);
  /// The request was given up.
  void given_up() { asked_at_.reset(); }

  /// A server does not accept the token of that version.
  void refused(std::uint64_t version);

  /// Removes this token and the one before from the part of a text that may be shown.
  void hide_in(std::string& text) const;

 private:
  std::string text_, previous_;
  std::uint64_t version_ = 0;
  bool usable_ = false;
  Time renew_at_ = Time::max();
  Time good_until_ = Time::max();
  std::chrono::nanoseconds pause_{0};
  std::optional<Time> asked_at_;
};

}  // namespace relay::webhook
