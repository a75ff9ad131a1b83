#include "envelope/refusals.h"

#include <fmt/core.h>

#include <cstddef>
#include <utility>

namespace relay::envelope {
namespace {

// After this many different refusals all are forgotten.
constexpr std::size_t kMostKnown = 1000;

}  // namespace

SharedError Refusals::get(std::string_view code, std::string_view what, std::string_view remedy) {
  std::string message = fmt::format("{}: {}", table_, what);
  if (const auto known = known_.find(message); known != known_.end()) return known->second;
  if (known_.size() >= kMostKnown) known_.clear();
  auto error =
      share(Error{ErrorClass::rejected, std::string(code), message, std::string(remedy), {}});
  return known_.emplace(std::move(message), std::move(error)).first->second;
}

}  // namespace relay::envelope
