#include "aws/errors.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

namespace relay::aws {

namespace {

using Known = KnownCode;

constexpr std::string_view kBadKey = "look at the credentials, the region and the clock";
constexpr std::string_view kSlower = "it is tried again later";

constexpr std::array kKnown = {
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
    Known{"RequestThrottled", ErrorClass::throttled, kSlower},
    Known{"Throttling", ErrorClass::throttled, kSlower},
    Known{"ThrottlingException", ErrorClass::throttled, kSlower},
    Known{"ThrottledException", ErrorClass::throttled, kSlower},
    Known{"RequestLimitExceeded", ErrorClass::throttled, kSlower},
    Known{"TooManyRequestsException", ErrorClass::throttled, kSlower},
    Known{"SlowDown", ErrorClass::throttled, kSlower},
    Known{"InternalError", ErrorClass::transient, kSlower},
    Known{"InternalFailure", ErrorClass::transient, kSlower},
    Known{"ServiceUnavailable", ErrorClass::transient, kSlower},
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

Error service_error(std::string_view where, std::string_view code, std::string_view message,
                    bool sender_fault, std::span<const KnownCode> own) {
  Error error;
  error.code = plain_code(code);
  error.message =
      fmt::format("{}: {}{}{}", where, error.code, message.empty() ? "" : ": ", one_line(message));
  error.error_class = sender_fault ? ErrorClass::rejected : ErrorClass::transient;
  error.remedy = sender_fault ? "mend what the service refuses, then retry the dead letter"
                              : "it is tried again";
  for (const auto codes : {std::span<const KnownCode>(kKnown), own}) {
    const auto known = std::ranges::find(codes, error.code, &KnownCode::code);
    if (known == codes.end()) continue;
    error.error_class = known->error_class;
    error.remedy = known->remedy;
  }
  return error;
}

}  // namespace relay::aws
