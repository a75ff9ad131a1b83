#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"
#include "postgres/replication.h"
#include "stream/store.h"

namespace relay::stream {

/// The publication and the replication slot of a stream: makes them, and makes them anew when they
/// are lost, without losing an event. From PostgreSQL 17 on standbys may synchronise the slot. One
/// thread at a time.
class SlotKeeper {
 public:
  /// `waits` is called about once a second while a new slot waits for open transactions, with what
  /// it waits for; meanwhile the events of those that ended come into the backlog.
  using Waits = std::function<Result<void>(const Error&)>;
  SlotKeeper(postgres::Connection& session, postgres::ReplicationConnection& log, Store& store,
             std::int64_t stream, Waits waits)
      : session_(session), log_(log), store_(store), stream_(stream), waits_(std::move(waits)) {}

  /// What the stream reads from.
  struct Slot {
    std::string name;
    std::string publication;
    std::int64_t timeline = 0;  ///< of the server
    bool made = false;          ///< only now: what is stored of the stream has changed
    bool lost = false;          ///< there was one before, which did not continue the stream
    bool failover = false;      ///< standbys may synchronise it
    std::string note = {};      ///< what has happened to it, for the operator; empty: nothing
  };
  /// Sees to it that there is a slot that continues the stream; what was missed is added to the
  /// backlog, numbered behind `last_n`. A slot that is `undecodable` is made anew. An error:
  /// another server than the one whose events were accounted for, or what the server refuses.
  Result<Slot> ready(std::int64_t last_n, bool undecodable, std::stop_token stop);

 private:
  struct Found;
  postgres::Connection& session_;
  postgres::ReplicationConnection& log_;
  Store& store_;
  const std::int64_t stream_;
  const Waits waits_;

  Result<Found> look(Deadline, std::stop_token);
  Result<Slot> continue_promoted(const Found& found, Slot slot, std::stop_token);
  Result<void> let_synchronise(const std::string& slot, std::stop_token);
  Result<void> make(const Found& found, std::int64_t last_n, std::stop_token);
  Result<postgres::ReplicationConnection::NewSlot> create(const Found& found, std::int64_t last_n,
                                                          std::stop_token);
  Result<void> wait_for_writers(std::int64_t last_n, std::stop_token);
  Result<std::string> read_snapshot(const std::string& exported, Deadline, std::stop_token);
};

}  // namespace relay::stream
