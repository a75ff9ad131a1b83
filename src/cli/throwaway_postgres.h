#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "core/error.h"

namespace relay::cli {

/// A PostgreSQL server of our own in a directory of its own, on loopback and a free port, that ends
/// and is deleted with this object. It is ended by its process id, so that no other server is hit.
class ThrowawayPostgres {
 public:
  /// `directory` empty: a temporary one. `settings` are of the server: "wal_level=logical". As root
  /// the server runs as the user `postgres`.
  static Result<std::unique_ptr<ThrowawayPostgres>> start(const std::string& directory,
                                                          const std::vector<std::string>& settings);
  ~ThrowawayPostgres();
  ThrowawayPostgres(const ThrowawayPostgres&) = delete;
  ThrowawayPostgres& operator=(const ThrowawayPostgres&) = delete;

  const std::string& url() const { return url_; }
  int port() const { return port_; }

 private:
  ThrowawayPostgres() = default;

  std::string directory_;
  std::string url_;
  int port_ = 0;
  pid_t pid_ = -1;
};

}  // namespace relay::cli
