#include "core/endpoint_errors.h"

#include <fmt/core.h>

#include <utility>

namespace relay {

void EndpointErrors::add(Error error) {
  auto& first = error.error_class == ErrorClass::transient ? passing_ : lasting_;
  if (!first) first = std::move(error);
}

Error EndpointErrors::error() const {
  if (!lasting_) return *passing_;
  if (!passing_) return *lasting_;
  Error both = *lasting_;
  both.error_class = ErrorClass::transient;
  both.message = fmt::format("{}; and {}", lasting_->message, passing_->message);
  both.remedy = fmt::format("{}; and {}", lasting_->remedy, passing_->remedy);
  return both;
}

}  // namespace relay
