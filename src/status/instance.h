#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "postgres/pool.h"
#include "status/status.h"

namespace relay::status {

/// A table of dead letters, with the columns of pgtrickle.relay_dlq.
struct DeadLetters {
  std::shared_ptr<postgres::Pool> pool;  ///< sessions with its database
  std::string_view table;
  std::string pipeline;  ///< whose dead letters are meant; empty: all in the table
};

/// A running instance, as its administration sees it. Any thread.
class Instance {
 public:
  virtual ~Instance() = default;

  /// How things stand. Does not wait.
  virtual Snapshot snapshot() const = 0;
  /// Sessions with the database in which changes are made; null: none are.
  virtual postgres::Pool* changes() = 0;
  virtual std::vector<DeadLetters> dead_letters() = 0;
};

}  // namespace relay::status
