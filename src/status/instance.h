#pragma once

#include <string_view>

#include "postgres/pool.h"
#include "status/status.h"

namespace relay::status {

/// A running instance, as its administration sees it. Any thread.
class Instance {
 public:
  virtual ~Instance() = default;

  /// How things stand. Does not wait.
  virtual Snapshot snapshot() const = 0;
  /// Sessions with its own database.
  virtual postgres::Pool& pool() = 0;
  /// Its table of dead letters there, with the columns of pgtrickle.relay_dlq.
  virtual std::string_view dead_letters() const = 0;
};

}  // namespace relay::status
