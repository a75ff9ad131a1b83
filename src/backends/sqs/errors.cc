#include "backends/sqs/errors.h"

#include <fmt/core.h>
#include <simdjson.h>

#include <array>

#include "aws/errors.h"

namespace relay::sqs {

namespace {

using Known = aws::KnownCode;

constexpr std::string_view kNoQueue = "look at queue_url, region and endpoint, or make the queue";
constexpr std::string_view kNoAccess =
    "allow the credentials sqs:SendMessage and sqs:GetQueueAttributes (a sink), or "
    "sqs:ReceiveMessage, sqs:DeleteMessage and "
    "sqs:ChangeMessageVisibility (a source) on the queue";
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
    Known{"UnsupportedOperation", ErrorClass::misconfigured, "look at what the endpoint is"},
    Known{"OverLimit", ErrorClass::throttled,
          "the queue has as many messages in flight as it may: it is tried again later"},
    Known{"KmsThrottled", ErrorClass::throttled, kSlower},
    Known{"InvalidMessageContents", ErrorClass::rejected,
          "take the characters out that SQS does not take"},
    Known{"BatchRequestTooLong", ErrorClass::rejected,
          "send smaller messages, or raise MaximumMessageSize of the queue (up to 1 MiB)"},
};

}  // namespace

bool is_expired_token(std::string_view code) {
  return code == "ExpiredToken" || code == "ExpiredTokenException" || code == "RequestExpired";
}

Error service_error(std::string_view where, std::string_view code, std::string_view message,
                    bool sender_fault) {
  return aws::service_error(where, code, message, sender_fault, kKnown);
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
