#pragma once

#include <functional>
#include <optional>
#include <string>

#include "core/mutex.h"

namespace relay::postgres {

/// A URL whose credentials may be changed while the program runs: a rotated password in a file. Any
/// thread.
class CurrentUrl {
 public:
  /// `read` gives the URL as it reads now; nothing: it cannot be read.
  CurrentUrl(std::string url, std::function<std::optional<std::string>()> read)
      : url_(std::move(url)), read_(std::move(read)) {}

  /// The URL as it reads now. Where it leads to another server or database than before it is not
  /// used, which is logged: a relay never goes on in another database than the one it began with.
  std::string get();

 private:
  Mutex mutex_;
  std::string url_ RELAY_GUARDED_BY(mutex_);
  const std::function<std::optional<std::string>()> read_;
};

}  // namespace relay::postgres
