#pragma once

#include <libpq-fe.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "core/arena.h"
#include "core/error.h"
#include "core/record.h"
#include "outbox/delta_cutter.h"
#include "outbox/outbox_info.h"

namespace relay::outbox {

/// An outbox row as a record; a claim check's rows are still to be fetched.
struct OutboxRow {
  Record record;
  bool claim_check = false;
  /// It is none: there are no further rows up to its id. The last one of a step in an adopted
  /// outbox.
  bool is_end = false;
  std::string history;           ///< of such a step: see PositionFacts
  std::string_view key_columns;  ///< as Payload's
  std::size_t bytes = 0;         ///< of its payload and headers
};

/// The statements that bring outbox rows and claim-check rows, and the decoding of what they bring.
/// A row arrives as one composite column in binary form: that costs server and client a third less
/// than a column for each field. One thread at a time.
class RowDecoder {
 public:
  RowDecoder(const OutboxInfo& outbox, std::int64_t max_record_bytes);

  /// Rows with $1 < id <= $2 in order of id, at most $3. A payload beyond max_record_bytes does not
  /// leave the server. In an adopted outbox they may be fewer, with one behind them that says so.
  const std::string& rows_sql() const { return rows_sql_; }
  /// rows_sql() has $4, $5 and $6 too: id and mark of the row that was read last, and the history
  /// that it was read from. It gives no rows, or an error, where they are others now. Of other
  /// outboxes the position tells it before it is moved on.
  bool compares_history() const { return outbox_.adopted; }
  /// The claim check $1: rows beyond the number $2 in order, at most $3.
  const std::string& delta_sql() const { return delta_sql_; }

  /// Copies what the record needs into `arena`. An error means that the server's answer is not
  /// understood; what is wrong with the row itself is `record.refused`.
  Result<OutboxRow> decode_row(const PGresult* result, Arena& arena);
  /// The statement has given all its rows. Transient: it is one of an adopted outbox, and did not
  /// say how far it looked, because it found the table changed.
  Result<void> check_end(bool said_end) const;
  /// The row points into `result`; its columns are in the order of jsonb.
  Result<DeltaRow> decode_delta_row(const PGresult* result) const;

  /// The key columns may have had other names when the row was recorded than when the outbox was
  /// made.
  const std::shared_ptr<const TableShape>& shape_of(const OutboxRow& row) {
    return row.key_columns.empty() ? outbox_.shape : shape_with_key(row.key_columns);
  }
  ColumnOrder& order() { return order_; }

 private:
  const std::shared_ptr<const TableShape>& shape_with_key(std::string_view key_columns);

  const OutboxInfo outbox_;
  const std::int64_t max_record_bytes_;
  ColumnOrder order_;
  std::string rows_sql_;
  std::string delta_sql_;
  std::map<std::string, std::shared_ptr<const TableShape>, std::less<>> shapes_;  // by key columns
};

/// Rows of a function of a snapshot (sql/functions/251) as decode_row takes them; `more`: further
/// columns.
std::string snapshot_rows_sql(std::string_view call, std::string_view more,
                              std::int64_t max_record_bytes);
/// Of a part of a claim check: its last row, and whether that is the last one of all.
struct SnapshotClaimEnd {
  std::int64_t last_row = 0;
  bool is_last = false;
};
SnapshotClaimEnd snapshot_claim_end(const PGresult* row);

SharedError record_too_large(std::int64_t max_record_bytes);

}  // namespace relay::outbox
