#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "core/deadline.h"
#include "postgres/lsn.h"
#include "stream/snapshot.h"

namespace relay::stream {

/// A committed transaction that brought events.
struct Transaction {
  std::int64_t n = 0;  ///< in the order of commits, from 1
  Xid xid = 0;
  postgres::Lsn end;  ///< of its commit record
  std::int64_t events = 0;
  SteadyClock::time_point received{};
};

/// Which transactions of the log are accounted for: settled, or recorded in the backlog. The server
/// may forget a transaction once it and all before it are. Pure. One thread at a time.
class TransactionLedger {
 public:
  /// The whole transaction was received, as the next one.
  void received(const Transaction& transaction);
  /// Between transactions: up to `end` the log holds nothing but what was received.
  void passed(postgres::Lsn end);
  /// All up to the `n`th are accounted for.
  void account(std::int64_t n);

  /// Received and not accounted for, in order.
  const std::deque<Transaction>& open() const { return open_; }
  /// All that was received up to here is accounted for.
  postgres::Lsn accounted_to() const;
  /// How much of the log the server keeps for what is not accounted for, in bytes.
  std::uint64_t held() const { return passed_.value - accounted_to().value; }

  /// The accounted transactions that ended behind `place`, which is no later than `accounted_to`.
  std::vector<Xid> accounted_behind(postgres::Lsn place) const;
  /// `accounted_behind` will be asked for this place or a later one.
  void forget_up_to(postgres::Lsn place);

 private:
  struct Accounted {
    Xid xid;
    postgres::Lsn end;
  };
  std::deque<Transaction> open_;
  std::deque<Accounted> accounted_;
  postgres::Lsn passed_;
  postgres::Lsn before_open_;  ///< all before the first open one is accounted for
};

}  // namespace relay::stream
