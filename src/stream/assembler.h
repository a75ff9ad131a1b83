#pragma once

#include <cstdint>
#include <variant>

#include "core/error.h"
#include "postgres/lsn.h"
#include "postgres/pgoutput.h"
#include "stream/accounted_before.h"
#include "stream/event_reader.h"

namespace relay::stream {

/// Tells which messages of the log are events that are to be delivered, and numbers their
/// transactions in the order of commits. Transactions that were accounted for before are left out;
/// so is what was received already, when a new session begins at an earlier place. Pure. One thread
/// at a time.
class Assembler {
 public:
  /// The transactions are numbered from `last_n` + 1.
  Assembler(AccountedBefore before, std::int64_t last_n)
      : before_(std::move(before)), last_n_(last_n) {}

  /// An event of the transaction that is being received.
  struct Event {
    std::int64_t n = 0;        ///< of its transaction
    std::int64_t ordinal = 0;  ///< within it, from 1
    EventRow row;
  };
  /// All events of the transaction were given.
  struct End {
    std::int64_t n = 0;
    Xid xid = 0;
    postgres::Lsn end;
    std::int64_t events = 0;
  };
  /// Up to here the log holds nothing else to be delivered.
  struct Passed {
    postgres::Lsn end;
  };
  using Step = std::variant<std::monostate, Event, End, Passed>;

  /// Takes the next message of a session. Views are valid as long as those of `message`. After an
  /// error the session cannot go on.
  Result<Step> take(const postgres::pgoutput::Message& message);
  /// The session has ended. The next one sends a transaction that was received in part again, from
  /// its beginning.
  void session_ended();

  /// Between the first event of a transaction and its end, sessions that ended there included.
  bool within_transaction() const { return n_ != 0; }
  std::int64_t last_n() const { return last_n_; }

 private:
  const AccountedBefore before_;
  EventReader reader_;
  std::int64_t last_n_;
  postgres::Lsn received_;  ///< the end of the last transaction that was received whole

  bool covered_ = false;       ///< the present transaction is left out
  postgres::Lsn commit_at_;    ///< its commit record
  std::int64_t seen_ = 0;      ///< its events in this session
  std::int64_t n_ = 0;         ///< 0: no event of it is to be delivered yet
  postgres::Lsn n_commit_at_;  ///< the commit record of the `n_`th
  Xid xid_ = 0;
  std::int64_t given_ = 0;  ///< events of the `n_`th that were given

  void begin(const postgres::pgoutput::Begin& begun);
  Result<Step> insert(const postgres::pgoutput::Insert& inserted);
  Step commit(const postgres::pgoutput::Commit& committed);
};

}  // namespace relay::stream
