#pragma once

#include <stop_token>

#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"

namespace relay::stream {

/// Makes the partitions of the days to come, and removes those that are older than the retention.
/// No step makes a writer wait, with one exception: where the role is no member of pgstream_owner,
/// writers may wait for 100 ms while a partition is removed. `run` is a thread's body.
class Maintenance {
 public:
  explicit Maintenance(const postgres::Connection::Options& database) : database_(database) {}

  void run(std::stop_token stop);

 private:
  const postgres::Connection::Options& database_;

  Result<void> work(std::stop_token stop);
  Result<void> remove_old(postgres::Connection& session, Deadline, std::stop_token);
  Result<void> remove_as_other(postgres::Connection& session, Deadline, std::stop_token);
};

}  // namespace relay::stream
