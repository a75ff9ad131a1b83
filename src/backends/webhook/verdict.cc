#include "backends/webhook/verdict.h"

#include <fmt/core.h>

#include <algorithm>

namespace relay::webhook {

namespace {

constexpr std::size_t kExcerpt = 200;

Verdict unknown(Error error, bool leave_alone) {
  return {Outcome::Kind::unknown, share(std::move(error)), leave_alone};
}

/// A status of `retry_on_status`. 429 and 503 say that the server takes nothing now; any other is
/// an answer to these messages.
Verdict again(const http::Response& response, Error error) {
  error.remedy = "it is tried again";
  const bool pause = response.status == 429 || response.retry_after.count() > 0;
  if (pause) {
    error.error_class = ErrorClass::throttled;
    error.retry_after = response.retry_after;
  }
  Verdict verdict = unknown(std::move(error), pause);
  verdict.counts = response.status != 429 && response.status != 503;
  return verdict;
}

}  // namespace

std::string remedy_of(int status) {
  if (status == 401) return "look at the credentials: bearer_token, user, oauth2_, request_headers";
  if (status == 403) return "look at the permissions of the credentials, and at the signature";
  if (status == 404) return "look at the path of url";
  if (status < 400) return "redirections are not followed: set url to where it leads";
  return "look at what the server says";
}

std::string excerpt(std::string_view body, std::span<const std::string> secrets) {
  std::string text(body.substr(0, 4 * kExcerpt));
  for (const std::string& secret : secrets) {
    for (auto at = text.find(secret); at != std::string::npos; at = text.find(secret, at)) {
      text.replace(at, secret.size(), "***");
    }
  }
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  if (text.size() > kExcerpt) {
    text.resize(kExcerpt);
    while (!text.empty() && (static_cast<unsigned char>(text.back()) & 0x80)) text.pop_back();
    text += "...";
  }
  return text;
}

Verdict judge(const http::Response& response, const Options& options) {
  if (response.error) return {Outcome::Kind::unknown, response.error, true};
  using Meaning = StatusRules::Meaning;
  const Meaning meaning = options.statuses.of(response.status);
  if (meaning == Meaning::delivered) return {Outcome::Kind::delivered, nullptr, false};
  const auto secrets = options.secrets();
  std::string said = excerpt(response.body, secrets);
  Error error{ErrorClass::transient,
              fmt::format("http_{}", response.status),
              fmt::format("{} answered {}{}{}", options.origin, response.status,
                          said.empty() ? "" : ": ", said),
              {},
              {}};
  switch (meaning) {
    case Meaning::retry:
      return again(response, std::move(error));
    case Meaning::pause: {
      error.error_class = ErrorClass::misconfigured;
      error.remedy =
          "the server asks for no more requests: correct url or disable the pipeline; "
          "`pgtrickle-relay pipelines resume " +
          options.pipeline + "` sends again";
      Verdict verdict = unknown(std::move(error), true);
      verdict.halts = true;
      return verdict;
    }
    case Meaning::misconfigured:
      error.error_class = ErrorClass::misconfigured;
      error.remedy = remedy_of(response.status);
      return unknown(std::move(error), true);
    default:
      error.error_class = ErrorClass::rejected;
      error.remedy = "mend what the server refuses, then retry the dead letter";
      return {Outcome::Kind::rejected, share(std::move(error)), false};
  }
}

Verdict given_up(const Verdict& last, const Options& options) {
  Error error = *last.error;
  error.error_class = ErrorClass::rejected;
  error.message += fmt::format(" (max_attempts, {}, is reached)", options.max_attempts.value_or(0));
  error.remedy = "mend what the server fails with, then retry the dead letter";
  error.retry_after = {};
  return {Outcome::Kind::rejected, share(std::move(error)), false, true};
}

}  // namespace relay::webhook
