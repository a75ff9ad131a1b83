#pragma once

#include <cstdint>
#include <stop_token>
#include <string>

#include "backends/pg_outbox/table_info.h"
#include "core/error.h"
#include "postgres/connection.h"
#include "state/positions.h"

namespace relay::pg_outbox {

/// How far the numbers of a table have come: ids, or transactions.
struct Newest {
  std::int64_t readable = 0;  ///< the highest id; the oldest transaction that still runs
  std::int64_t drawn = 0;     ///< the highest id; the newest transaction
};
Result<Newest> read_newest(postgres::Connection& connection, const TableInfo& table,
                           Deadline deadline, std::stop_token stop);

/// Where a reader of a table begins that has no position. At "latest" everything that has committed
/// at one moment of this call is skipped, and nothing that commits later, whatever its number: a
/// transaction draws it before it commits. Misconfigured: a table by transactions has no ids to
/// start at.
Result<state::Start> find_start(postgres::Connection& connection, const TableInfo& table,
                                const std::string& start, std::stop_token stop);

}  // namespace relay::pg_outbox
