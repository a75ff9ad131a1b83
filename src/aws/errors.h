#pragma once

#include <span>
#include <string>
#include <string_view>

#include "core/error.h"

namespace relay::aws {

/// An error code of AWS without the names before it: "QueueDoesNotExist" for
/// "com.amazonaws.sqs#QueueDoesNotExist" and for "AWS.SimpleQueueService.NonExistentQueue".
std::string plain_code(std::string_view code);

/// What an error code means, without the names before it.
struct KnownCode {
  std::string_view code;
  ErrorClass error_class;
  std::string_view remedy;
};

/// What an error of a service means: by its `own` codes, else by those of all services of AWS.
/// Codes that are not known: of the class rejected where the sender is at fault, else transient.
Error service_error(std::string_view where, std::string_view code, std::string_view message,
                    bool sender_fault, std::span<const KnownCode> own = {});

}  // namespace relay::aws
