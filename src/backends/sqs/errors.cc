#include "backends/sqs/errors.h"

#include <fmt/core.h>
#include <simdjson.h>

#include <array>

namespace relay::sqs {

namespace {

struct Known {
  std::string_view code;
  ErrorClass error_class;
  std::string_view remedy;
};

constexpr std::string_view kNoQueue = "look at queue_url, region and endpoint, or make the queue";
constexpr std::string_view kNoAccess =
    "allow the credentials sqs:SendMessage (a sink), or sqs:ReceiveMessage, sqs:DeleteMessage and "
    "sqs:ChangeMessageVisibility (a source) on the queue";
constexpr std::string_view kBadKey = "look at the credentials, the region and the clock";
constexpr std::string_view kSlower = "it is tried again later";

constexpr std::array kKnown = {
    Known{"QueueDoesNotExist", ErrorClass::misconfigured, kNoQueue},
    Known{"NonExistentQueue", ErrorClass::misconfigured, kNoQueue},
    Known{"QueueDeletedRecently", ErrorClass::misconfigured, kNoQueue},
    Known{"InvalidAddress", ErrorClass::misconfigured, kNoQueue},
    Known{"AccessDenied", ErrorClass::misconfigured, kNoAccess},
    Known{"AccessDeniedException", ErrorClass::misconfigured, kNoAccess},
    Known{"KmsAccessDenied", ErrorClass::misconfigured, kNoAccess},
    Known{"KmsDisabled", ErrorClass::misconfigured, "enable the queue's key in KMS"},
    Known{"KmsInvalidState", ErrorClass::misconfigured, "look at the queue's key in KMS"},
    Known{"KmsNotFound", ErrorClass::misconfigured, "look at the queue's key in KMS"},
    Known{"KmsOptInRequired", ErrorClass::misconfigured, "look at the queue's key in KMS"},
    Known{"InvalidClientTokenId", ErrorClass::misconfigured, kBadKey},
    Known{"UnrecognizedClientException", ErrorClass::misconfigured, kBadKey},
    Known{"InvalidSecurity", ErrorClass::misconfigured, kBadKey},
    Known{"SignatureDoesNotMatch", ErrorClass::misconfigured, kBadKey},
    Known{"IncompleteSignature", ErrorClass::misconfigured, kBadKey},
    Known{"MissingAuthenticationToken", ErrorClass::misconfigured, kBadKey},
    Known{"OptInRequired", ErrorClass::misconfigured, kBadKey},
    Known{"InvalidSignatureException", ErrorClass::misconfigured, kBadKey},
    Known{"ExpiredToken", ErrorClass::misconfigured, "renew the session token"},
    Known{"ExpiredTokenException", ErrorClass::misconfigured, "renew the session token"},
    Known{"RequestExpired", ErrorClass::misconfigured, "look at the clock"},
    Known{"UnsupportedOperation", ErrorClass::misconfigured, "look at what the endpoint is"},
    Known{"RequestThrottled", ErrorClass::throttled, kSlower},
    Known{"Throttling", ErrorClass::throttled, kSlower},
    Known{"ThrottlingException", ErrorClass::throttled, kSlower},
    Known{"ThrottledException", ErrorClass::throttled, kSlower},
    Known{"RequestLimitExceeded", ErrorClass::throttled, kSlower},
    Known{"TooManyRequestsException", ErrorClass::throttled, kSlower},
    Known{"SlowDown", ErrorClass::throttled, kSlower},
    Known{"OverLimit", ErrorClass::throttled,
          "the queue has as many messages in flight as it may: it is tried again later"},
    Known{"KmsThrottled", ErrorClass::throttled, kSlower},
    Known{"InternalError", ErrorClass::transient, kSlower},
    Known{"InternalFailure", ErrorClass::transient, kSlower},
    Known{"ServiceUnavailable", ErrorClass::transient, kSlower},
    Known{"InvalidMessageContents", ErrorClass::rejected,
          "take the characters out that SQS does not take"},
    Known{"BatchRequestTooLong", ErrorClass::rejected,
          "set max_message_bytes to the queue's limit"},
};

constexpr std::size_t kExcerpt = 300;

std::string one_line(std::string_view text) {
  std::string line(text.substr(0, kExcerpt));
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  return line;
}

}  // namespace

std::string plain_code(std::string_view code) {
  // "AWS.SimpleQueueService.NonExistentQueue;Sender"
  code = code.substr(0, code.find(';'));
  if (const auto mark = code.find_last_of("#."); mark != std::string_view::npos) {
    code.remove_prefix(mark + 1);
  }
  return std::string(code);
}

bool is_expired_token(std::string_view code) {
  return code == "ExpiredToken" || code == "ExpiredTokenException" || code == "RequestExpired";
}

Error service_error(std::string_view where, std::string_view code, std::string_view message,
                    bool sender_fault) {
  Error error;
  error.code = plain_code(code);
  error.message =
      fmt::format("{}: {}{}{}", where, error.code, message.empty() ? "" : ": ", one_line(message));
  error.error_class = sender_fault ? ErrorClass::rejected : ErrorClass::transient;
  error.remedy = sender_fault ? "mend what the queue refuses, then retry the dead letter"
                              : "it is tried again";
  for (const Known& known : kKnown) {
    if (known.code != error.code) continue;
    error.error_class = known.error_class;
    error.remedy = known.remedy;
  }
  return error;
}

Error response_error(std::string_view where, const http::Response& response) {
  std::string code;
  std::string message;
  simdjson::dom::parser parser;
  if (const auto parsed = parser.parse(response.body); !parsed.error()) {
    std::string_view text;
    if (!parsed["__type"].get(text)) code = text;
    if (!parsed["message"].get(text) || !parsed["Message"].get(text)) message = text;
  }
  if (code.empty()) code = response.error_header;
  const bool known_code = !code.empty();
  if (!known_code) {
    code = fmt::format("HTTP {}", response.status);
    message = response.status < 500 ? response.body : std::string();
  }
  const bool sender_fault = response.status >= 400 && response.status < 500;
  Error error = service_error(where, code, message, sender_fault);
  if (response.status == 429 || response.retry_after.count() > 0) {
    error.error_class = ErrorClass::throttled;
    error.retry_after = response.retry_after;
  } else if (!known_code && sender_fault && response.status != 413) {
    // Nothing that speaks the protocol: not this message's fault.
    error.error_class = response.status == 408 ? ErrorClass::transient : ErrorClass::misconfigured;
    error.remedy = "look at queue_url and endpoint: does SQS answer there?";
  } else if (response.status < 400) {
    error.error_class = ErrorClass::misconfigured;
    error.remedy = "look at queue_url and endpoint: does SQS answer there?";
  }
  return error;
}

}  // namespace relay::sqs
