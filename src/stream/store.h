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
#include "stream/snapshot.h"
#include "stream/transaction_ledger.h"

namespace relay::stream {

/// What a stream keeps in the schema `pgstream` of its database: which transactions were accounted
/// for, and the backlog. Writing is fenced: another daemon may own the stream by now. One thread at
/// a time.
class Store {
 public:
  struct Key {
    std::int64_t stream = 0;
    std::string token;  ///< of its owner
  };
  Store(postgres::Connection& connection, Key key)
      : connection_(connection), key_(std::move(key)) {}

  struct Stored {
    AccountedBefore accounted;
    std::int64_t last_n = 0;          ///< of the backlog
    std::int64_t backlog_events = 0;  ///< those of its transactions
  };
  Result<Stored> load(Deadline, std::stop_token);

  /// Adds the transactions, which are in order, to the backlog; all before the last one's end are
  /// accounted for with that.
  Result<void> record(std::span<const Transaction> transactions, Deadline, std::stop_token);
  /// Removes the transactions up to the `n`th from the backlog.
  Result<void> remove(std::int64_t n, Deadline, std::stop_token);

  /// What a statement sees now, and a place of the log behind all of that.
  struct Moment {
    std::string snapshot;
    postgres::Lsn place;
  };
  Result<Moment> look(Deadline, std::stop_token);
  /// All that `snapshot` sees is accounted for, and `also`.
  Result<void> keep(const std::string& snapshot, std::span<const Xid> also, Deadline,
                    std::stop_token);

 private:
  postgres::Connection& connection_;
  Key key_;

  Result<void> write(std::string_view sql, std::initializer_list<postgres::Param> params, Deadline,
                     std::stop_token);
};

}  // namespace relay::stream
