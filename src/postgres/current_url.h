#pragma once

#include <functional>
#include <optional>
#include <string>

#include "core/mutex.h"

namespace relay::postgres {

/// A URL whose credentials may change while the program runs, such as a password in a file that is
/// rotated. Any thread.
class CurrentUrl {
 public:
  /// `read` returns the URL as it is now, or nothing if it cannot be read.
  CurrentUrl(std::string url, std::function<std::optional<std::string>()> read)
      : url_(std::move(url)), read_(std::move(read)) {}

  /// The current URL. One that names another server or database than before is logged and not used:
  /// a relay never changes its database while it runs.
  std::string get();

 private:
  Mutex mutex_;
  std::string url_ RELAY_GUARDED_BY(mutex_);
  const std::function<std::optional<std::string>()> read_;
};

}  // namespace relay::postgres
