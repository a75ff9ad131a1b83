#include "core/error.h"

#include <fmt/core.h>

namespace relay {

std::string_view to_string(ErrorClass error_class) {
  switch (error_class) {
    case ErrorClass::transient:
      return "transient";
    case ErrorClass::throttled:
      return "throttled";
    case ErrorClass::rejected:
      return "rejected";
    case ErrorClass::misconfigured:
      return "misconfigured";
    case ErrorClass::fenced:
      return "fenced";
    case ErrorClass::cancelled:
      return "cancelled";
  }
  return "unknown";
}

Error Error::in_context(std::string_view context) const {
  Error outer = *this;
  outer.message = fmt::format("{}: {}", context, message);
  return outer;
}

}  // namespace relay
