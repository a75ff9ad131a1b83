#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "backends/pg_outbox/options.h"
#include "backends/pg_outbox/table_info.h"
#include "connector/registry.h"
#include "connector/source.h"
#include "outbox/horizon.h"
#include "postgres/pool.h"
#include "state/local_position.h"
#include "state/skip_set.h"

namespace relay::pg_outbox {

/// Reads a plain table of another database, whose rows are only ever inserted, as events, never
/// skipping one. Two ways:
///
/// - by its ids, which only its own inserts draw: an insert locks the table before it draws an id,
///   so that a gap is passed once those who held that lock when it was seen have ended (Horizon);
/// - by a column of type xid8: rows of transactions below the oldest one that still runs, in order
///   of transaction and id. Any long transaction of that server holds it back.
///
/// The position is kept in the relay's own database, which that table knows nothing of. Threads as
/// for Source.
class TableSource final : public Source {
 public:
  TableSource(Options options, BackendContext context);

  Result<void> open(std::stop_token stop) override;
  Result<RecordBatch> read(const ReadLimits& limits, Deadline deadline,
                           std::stop_token stop) override;
  Result<void> acknowledge(const Position& settled, std::span<const DeadLetter> letters) override;
  std::optional<std::int64_t> lag() override;
  void close() override;
  Inspection inspect(std::stop_token stop) override;

 private:
  Result<void> open_on(postgres::Connection& connection, Deadline deadline, std::stop_token stop);
  Result<state::Ownership> claim(postgres::Connection& connection, std::stop_token stop);
  Result<RecordBatch> read_page(postgres::Connection& connection, const ReadLimits& limits,
                                std::stop_token stop);
  void jump();
  bool take_row(const postgres::Rows& row, RecordBatch& batch);
  Record record_of(const postgres::Rows& row, RecordBatch& batch);
  std::string_view payload_of(const postgres::Rows& row, Arena& arena);
  Result<bool> look(postgres::Connection& connection, std::stop_token stop);

  const Options options_;
  const BackendContext context_;
  postgres::Pool pool_;
  state::LocalPosition position_;
  std::optional<TableInfo> table_;
  outbox::ColumnOrder order_;
  outbox::Horizon horizon_;
  state::SkipSet skipped_;         // numbers that are not delivered
  Position read_to_;               // the last row that was read and passed
  std::int64_t handed_out_ = 0;    // the last number that was
  bool more_ = false;              // the last page was full
  std::int64_t first_beyond_ = 0;  // a row behind an open gap
  std::int64_t sequence_ = 0;      // the newest id that was seen drawn
};

}  // namespace relay::pg_outbox
