#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "postgres/connection.h"
#include "stream/flow.h"

namespace relay::stream {

struct StreamOptions {
  std::int64_t id = 1;
  postgres::Connection::Options database;  ///< as the daemon's role, which has REPLICATION
  std::string owner;                       ///< the token of this daemon: a uuid
  SpoolLimits spool;
};

}  // namespace relay::stream
