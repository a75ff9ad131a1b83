#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace relay {

/// Errors by what can be done about them.
enum class ErrorClass {
  transient,      ///< try again later, for ever
  throttled,      ///< try again, not before `retry_after`
  rejected,       ///< this message is poison; no retry can help
  misconfigured,  ///< the operator has to change something; until then it waits
  fenced,         ///< another instance owns the pipeline now: stop, commit nothing
  cancelled,      ///< we were asked to stop
};

std::string_view to_string(ErrorClass);

/// The code of an error for an endpoint that does not answer: nothing was sent, and trying again
/// costs little.
inline constexpr std::string_view kUnreachable = "unreachable";

/// What went wrong, where, and what to do. Never holds a secret.
struct Error {
  ErrorClass error_class = ErrorClass::transient;
  std::string code;     ///< short and stable, such as an SQLSTATE or "no_stream"
  std::string message;  ///< what happened and where (pipeline, endpoint)
  std::string remedy;   ///< what the operator can do; may be empty
  std::chrono::milliseconds retry_after{0};

  /// The same error, as its caller reports it: "opening the sink: connection refused".
  [[nodiscard]] Error in_context(std::string_view context) const;
};

/// A value or an Error. Ignoring one is a warning.
template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
};

inline tl::unexpected<Error> fail(Error error) {
  return tl::unexpected<Error>(std::move(error));
}

inline tl::unexpected<Error> fail(ErrorClass error_class, std::string code, std::string message,
                                  std::string remedy = {}) {
  return fail(Error{error_class, std::move(code), std::move(message), std::move(remedy), {}});
}

/// An error that lasts until the operator changes something.
inline Error misconfigured(std::string code, std::string message, std::string remedy) {
  return {ErrorClass::misconfigured, std::move(code), std::move(message), std::move(remedy), {}};
}

/// An error that several messages share.
using SharedError = std::shared_ptr<const Error>;

inline SharedError share(Error error) {
  return std::make_shared<const Error>(std::move(error));
}

}  // namespace relay
