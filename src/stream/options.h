#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "postgres/connection.h"
#include "stream/flow.h"

namespace relay::stream {

enum class Reader {
  wal,    ///< by logical replication, in the order of commits
  table,  ///< by queries, in the order in which each row was changed
};

struct StreamOptions {
  std::int64_t id = 0;
  postgres::Connection::Options database;  ///< as the daemon's role, which has REPLICATION
  std::string owner;                       ///< the token of this daemon: a uuid
  Reader reader{};
  SpoolLimits spool;
  std::chrono::milliseconds poll_interval{};  ///< of `Reader::table`
};

}  // namespace relay::stream
