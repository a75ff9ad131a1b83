#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "backends/pg_outbox/options.h"
#include "core/deadline.h"
#include "core/error.h"
#include "core/record.h"
#include "outbox/outbox_info.h"
#include "postgres/connection.h"

namespace relay::pg_outbox {

/// A plain table that is read, as its database has it now.
struct TableInfo {
  std::string table;        ///< qualified and quoted
  std::string oid;          ///< of the table
  std::string id_column;    ///< quoted
  std::string sequence;     ///< to be used as regclass; empty where an xid column decides
  std::string incarnation;  ///< a uuid that another table, or this one in another cluster, has not
  std::string content_type;
  bool payload_is_bytes = false;
  bool by_xid = false;
  std::string page;  ///< rows behind a position: id, xid, created_at, event id, type, key, headers,
                     ///< payload (NULL where it is too large), its size, a hash of it
                     ///< that tells a row from another one with the same id
  std::vector<outbox::Column> columns;  ///< where the payload is the whole row
  std::shared_ptr<const TableShape> shape;
};

/// Finds the table, and checks what reading without skipping stands on: not a standby; a sequence
/// that the table owns and that gives ids one by one, or a column of type xid8. Misconfigured:
/// anything else, or a column that is not there.
Result<TableInfo> open_table(postgres::Connection& connection, const Options& options,
                             std::int64_t max_record_bytes, Deadline deadline,
                             std::stop_token stop);

}  // namespace relay::pg_outbox
