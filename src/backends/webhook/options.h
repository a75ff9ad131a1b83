#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/webhook/oauth2.h"
#include "backends/webhook/status.h"
#include "config/fields.h"
#include "core/error.h"
#include "http/client.h"

namespace relay::webhook {

/// The options of the sink, checked.
struct Options {
  std::string origin;  ///< of `url`, for messages
  std::string base;    ///< `url` without credentials: what a path as subject stands behind
  std::string method;
  std::map<std::string, std::string> headers;
  std::string bearer_token;
  OAuth2Options oauth2;
  std::vector<std::string> signing_keys;  ///< decoded; each gives one signature
  bool batch = false;
  std::size_t batch_max_messages = 0;
  std::size_t batch_max_bytes = 0;
  std::chrono::milliseconds timeout{};
  std::size_t max_in_flight = 0;
  StatusRules statuses;
  std::optional<int> max_attempts;
  http::ClientOptions client;
  std::string pipeline;
  /// Where requests may go: of `url`, and of the subject template. Empty: a row's values decide
  /// about the host. A dead letter is sent by the address that is stored with it, and a role that
  /// may change that must not be sent our credentials.
  std::vector<std::string> origins;
  bool ordered = true;  ///< at most one message of a key under way

  /// Texts that must not be shown, also where another server sends them back.
  std::vector<std::string> secrets() const;
};

config::FieldTable sink_fields();

/// The origins that requests may go to, where `url` and the pipeline's subject template fix them.
std::vector<std::string> fixed_origins(const config::Values& values,
                                       const std::optional<std::string>& subject_template);

/// Checks what single options cannot say.
Result<Options> parse_options(const config::Values& values);

/// `url` without credentials: each message's subject is its address.
Result<std::string> default_subject(const config::Values& values);

/// The bytes of a signing secret: what follows "whsec_" is base64, anything else is taken as it is.
Result<std::string> signing_key(std::string_view secret);
/// Those of several secrets, separated by spaces.
Result<std::vector<std::string>> signing_keys(std::string_view secrets);

}  // namespace relay::webhook
