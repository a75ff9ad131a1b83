#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"
#include "postgres/lsn.h"
#include "stream/accounted_before.h"
#include "stream/rounds.h"
#include "stream/snapshot.h"
#include "stream/transaction_ledger.h"

namespace relay::stream {

/// The schema `pgstream` does not know the stream.
Error no_stream(std::int64_t stream);

/// What a stream keeps in the schema `pgstream` of its database: which transactions were accounted
/// for, and the backlog. Writing is fenced: another daemon may own the stream by now. One thread at
/// a time.
class Store {
 public:
  struct Key {
    std::int64_t stream = 0;
    std::string token;  ///< of its owner
  };
  /// A session for a store: what it commits outlasts a crash of the server.
  static Result<std::unique_ptr<postgres::Connection>> open_session(
      const postgres::Connection::Options& database, Deadline, std::stop_token);

  Store(postgres::Connection& connection, Key key)
      : connection_(connection), key_(std::move(key)) {}

  /// Makes this daemon the owner: the one before can write nothing any more.
  Result<void> claim(Deadline, std::stop_token);

  struct Stored {
    AccountedBefore accounted;
    std::int64_t last_n = 0;          ///< the highest number of a transaction that was ever stored
    std::int64_t backlog_events = 0;  ///< of the transactions behind the one that was asked for
  };
  Result<Stored> load(std::int64_t behind_n, Deadline, std::stop_token);

  /// Adds the transactions, which are in order, to the backlog; all before the last one's end are
  /// accounted for with that.
  Result<void> record(std::span<const Transaction> transactions, Deadline, std::stop_token);
  /// All that committed before `place` is accounted for.
  Result<void> account(postgres::Lsn place, Deadline, std::stop_token);
  /// Removes the transactions up to the `n`th from the backlog.
  Result<void> remove(std::int64_t n, Deadline, std::stop_token);

  /// What a statement sees now, and a place of the log behind all of that.
  struct Moment {
    std::string snapshot;
    postgres::Lsn place;
    /// The publication is the one that the slot was made for, and has been until now.
    bool published = false;
  };
  Result<Moment> look(Deadline, std::stop_token);
  /// All that `snapshot` sees is accounted for, and `also`.
  Result<void> keep(const std::string& snapshot, std::span<const Xid> also, Deadline,
                    std::stop_token);

  /// From where a stream that is read from the table goes on.
  Result<Rounds::Place> load_rounds(Deadline, std::stop_token);
  Result<void> keep(const Rounds::Place& settled, Deadline, std::stop_token);

  /// All that `snapshot` sees is accounted for: the events that are not are added to the backlog,
  /// numbered behind `last_n`, in an order that is right for each row.
  Result<void> continue_from(const std::string& snapshot, std::int64_t last_n, Deadline,
                             std::stop_token);

  /// For what else is written of the stream in the same way: `sql` gives a row if this daemon owns
  /// the stream, whose id and token are its first parameters.
  Result<void> write(std::string_view sql, std::initializer_list<postgres::Param> params, Deadline,
                     std::stop_token);

 private:
  postgres::Connection& connection_;
  Key key_;
};

}  // namespace relay::stream
