#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <stop_token>

#include "connector/source.h"
#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"
#include "stream/event_queue.h"
#include "stream/transaction_ledger.h"

namespace relay::stream {

/// The events of the backlog, in the order of commits. They come while those before them are worked
/// on, by statements that are short enough to hold nothing up. One thread at a time.
class BacklogReader {
 public:
  /// A session for a reader: its statements run without parallel workers.
  static Result<std::unique_ptr<postgres::Connection>> open_session(
      const postgres::Connection::Options& database, Deadline, std::stop_token);

  BacklogReader(postgres::Connection& connection, std::int64_t stream)
      : connection_(connection), stream_(stream) {}

  struct Page {
    Cursor last;
    std::int64_t events = 0;  ///< that were read
    bool at_end = false;      ///< the backlog holds no transaction behind `last`
  };
  /// Moves events behind `cursor` into the batch, as far as the limits allow.
  Result<Page> read(const Cursor& cursor, const ReadLimits& limits, RecordBatch& batch, Deadline,
                    std::stop_token);

 private:
  postgres::Connection& connection_;
  const std::int64_t stream_;
  std::deque<Transaction> entries_;  ///< behind `cursor_`, the one that it stands in included
  Cursor cursor_;
  struct Statement {
    std::int64_t through = 0;  ///< the transaction up to which it brings events
    std::int64_t most = 0;     ///< how many, if there are more
    std::int64_t rows = 0;     ///< that it has brought
  };
  std::optional<Statement> statement_;  ///< under way

  Result<void> read_on(const ReadLimits&, RecordBatch&, Page&, Deadline, std::stop_token);
  Result<void> fetch_entries(Deadline, std::stop_token);
  Result<void> start();
  Result<void> take(const PGresult* row, RecordBatch& batch);
  void begin_at(const Cursor& cursor, Deadline);
};

}  // namespace relay::stream
