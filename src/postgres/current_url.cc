#include "postgres/current_url.h"

#include <map>

#include "core/error.h"
#include "core/log.h"
#include "postgres/url.h"

namespace relay::postgres {

namespace {

/// What a URL connects to, without the credentials.
std::map<std::string, std::string> place_of(const std::string& url) {
  auto values = parse_url(url);
  for (const char* credential : {"user", "password", "passfile", "sslcert", "sslkey", "sslpassword",
                                 "sslrootcert", "sslcrl"}) {
    values.erase(credential);
  }
  return values;
}

}  // namespace

std::string CurrentUrl::get() {
  const MutexLock lock(mutex_);
  const auto now = read_();
  if (!now || *now == url_) return url_;
  if (place_of(*now) == place_of(url_)) {
    url_ = *now;
    log::recovered("postgres_url", "");
    return url_;
  }
  log::failure("postgres_url", "",
               Error{ErrorClass::misconfigured,
                     "postgres_url_changed",
                     "the PostgreSQL URL now names another server or database than at the start of "
                     "the relay, and is not used",
                     "restart the relay, or undo the change of the URL",
                     {}});
  return url_;
}

}  // namespace relay::postgres
