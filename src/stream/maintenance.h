#pragma once

#include <stop_token>

#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"
#include "stream/options.h"

namespace relay::stream {

/// Makes the partitions of the days to come, and removes those that are older than the retention.
/// No step makes a writer wait, with one exception: where the role is no member of pgstream_owner,
/// writers may wait for 100 ms while a partition is removed. It is done at the start, and then when
/// the stream's `next_maintenance_at` has come. `run` is a thread's body.
class Maintenance {
 public:
  explicit Maintenance(const StreamOptions& options) : options_(options) {}

  void run(std::stop_token stop);

 private:
  const StreamOptions& options_;

  /// `anyway`: also if it is not due.
  Result<void> look(bool anyway, std::stop_token stop);
  Result<void> work(postgres::Connection& session, Deadline, std::stop_token);
  Result<void> remove_old(postgres::Connection& session, Deadline, std::stop_token);
  Result<void> remove_as_other(postgres::Connection& session, Deadline, std::stop_token);
};

}  // namespace relay::stream
