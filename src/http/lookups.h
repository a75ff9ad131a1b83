#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/deadline.h"
#include "core/wakeup.h"

namespace relay::http {

/// Resolves names without holding up its caller. What was found is kept for a minute. One thread.
class Lookups {
 public:
  struct Found {
    std::vector<std::string> usable;  ///< public addresses, as the system orders them
    std::string refused;              ///< one that is not public, where there is one
    SteadyClock::time_point at;
  };

  /// The addresses of a name, or of an address in any notation; null: not known yet, and `fd`
  /// becomes readable when it is. A name that does not exist has none.
  const Found* find(const std::string& host);

  /// Of these addresses, the one to be used now.
  std::string choose(const std::string& host, const Found& found) const;
  /// That address could not be reached: the next one is used from now on.
  void failed(const std::string& host);

  int fd() const { return wakeup_->fd(); }
  void drain() const { wakeup_->drain(); }

 private:
  struct Lookup {
    std::atomic<bool> done{false};
    Found found;  // of the thread that resolves until `done`, then of the caller
    std::size_t turn = 0;
  };

  static void resolve(const std::string& host, Lookup& lookup);
  void forget_old();

  std::map<std::string, std::shared_ptr<Lookup>, std::less<>> lookups_;
  std::shared_ptr<Wakeup> wakeup_ = std::make_shared<Wakeup>();
};

}  // namespace relay::http
