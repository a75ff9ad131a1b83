#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "aws/identity.h"
#include "aws/sigv4.h"
#include "core/deadline.h"
#include "core/error.h"
#include "http/client.h"

namespace relay::aws {

/// Keys, and until when they are good.
struct Granted {
  Credentials keys;
  std::optional<std::chrono::system_clock::time_point> expires;  ///< nothing: they do not
};

/// What the chain sees of the world.
struct Surroundings {
  std::function<std::string(const char* name)> variable;  ///< empty where it is not set
  std::function<std::optional<std::string>(const std::string& path)> file;
  std::function<Result<http::Response>(http::Request)> fetch;
  std::function<std::chrono::system_clock::time_point()> now;
};

/// Those of this process. Requests end with the deadline and the stop; `tls_ca` is the file with
/// the authorities to trust (empty: the system's), `proxy` is as the option has it (empty: what the
/// environment says).
Surroundings process_surroundings(std::string tls_ca, std::string proxy, Deadline deadline,
                                  std::stop_token stop);

/// An INI file as AWS has them: section -> key -> value; "[profile x]" is the section "x".
using Sections = std::map<std::string, std::map<std::string, std::string>>;
Sections parse_ini(std::string_view text);

/// "2026-04-27T10:15:03Z"; nothing where it is no such time.
std::optional<std::chrono::system_clock::time_point> parse_time(std::string_view text);

/// The region of the environment or of the profile; empty where neither says.
std::string find_region(const Identity& options, const Surroundings& around);

/// Credentials from the first place that has some: the configuration, the environment, the shared
/// files (with roles), web identity, container, instance. Transient: a service that gives them does
/// not answer. Misconfigured: there are none, or what is configured cannot be used.
Result<Granted> find_credentials(const Identity& options, const Surroundings& around);

/// Keeps credentials and renews them before they end.
class Keys {
 public:
  explicit Keys(Identity options) : options_(std::move(options)) {}

  /// Good ones. Looks for new ones where there are none or the old ones end within five minutes; as
  /// long as the old ones are good, failing to find new ones is no error.
  Result<Credentials> get(const Surroundings& around);
  /// Until when those are good that `get` gave; nothing: they do not end.
  std::optional<std::chrono::system_clock::time_point> expire() const {
    return granted_ ? granted_->expires : std::nullopt;
  }
  /// As `find_region`.
  std::string region(const Surroundings& around) const { return find_region(options_, around); }
  /// The service says that these are too old.
  void forget() { granted_.reset(); }

 private:
  const Identity options_;
  std::optional<Granted> granted_;
};

}  // namespace relay::aws
