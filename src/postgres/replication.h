#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <variant>

#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"
#include "postgres/lsn.h"

namespace relay::postgres {

/// A walsender session of one database: it makes logical slots and streams from one. One thread at
/// a time. (PostgreSQL's manual: "Streaming Replication Protocol".)
///
/// The server ends a session from which it has heard nothing for `wal_sender_timeout`. Status
/// messages alone keep it alive: a caller that cannot take more data may stop to receive, and
/// report.
class ReplicationConnection {
 public:
  /// `options.replication` need not be set. A role without REPLICATION, a server whose wal_level is
  /// not logical and one without a free walsender are misconfigured, each with its remedy.
  static Result<std::unique_ptr<ReplicationConnection>> open(Connection::Options options,
                                                             std::stop_token);

  struct System {
    std::string identifier;  ///< of the cluster; a physical standby has that of its primary
    std::uint32_t timeline = 0;
    Lsn position;         ///< flushed up to here
    std::string started;  ///< when the server was started, in seconds: it tells servers apart
  };
  Result<System> identify(Deadline, std::stop_token);

  struct SlotOptions {
    bool temporary = false;
    bool failover = false;  ///< synchronised to standbys; PostgreSQL 17
  };
  struct NewSlot {
    Lsn consistent_point;  ///< transactions that commit after it are streamed
    /// The state of the database at that point, for SET TRANSACTION SNAPSHOT in another session. It
    /// ends with the next command of this session.
    std::string snapshot;
  };
  /// A slot for pgoutput. Waits for every transaction that has an xid, in any database.
  Result<NewSlot> create_slot(std::string_view name, SlotOptions, Deadline, std::stop_token);
  /// Lets standbys synchronise a slot that no session uses; PostgreSQL 17, on a primary.
  Result<void> let_failover(std::string_view name, Deadline, std::stop_token);
  Result<void> drop_slot(std::string_view name, Deadline, std::stop_token);

  struct StreamOptions {
    std::span<const std::string> publications;
    bool messages = false;  ///< those of pg_logical_emit_message too
    bool binary = false;    ///< values in the binary form of their types
  };
  /// Streams from where the slot was confirmed. (An own idea of the place would be wrong after a
  /// failover: the server skips what lies before it.)
  Result<void> start(std::string_view slot, const StreamOptions&, Deadline, std::stop_token);

  struct Data {
    Lsn start;
    Lsn server_end;            ///< the end of the server's log when it was sent
    std::string_view message;  ///< of pgoutput
  };
  struct Keepalive {
    Lsn server_end;
    bool reply_requested = false;  ///< the session ends soon without a report
  };
  using Event = std::variant<std::monostate, Data, Keepalive>;
  /// The next event, or none if nothing came within `patience`. Views are valid until the next
  /// call. An error when the stream has ended: by its SQLSTATE and `pg_replication_slots` the
  /// caller knows why.
  Result<Event> next(std::chrono::milliseconds patience, std::stop_token);

  /// Tells the server that all up to `received` was taken, and that it may forget all before
  /// `confirmed`.
  Result<void> report(Lsn received, Lsn confirmed, Deadline, std::stop_token);

  bool ok() const { return session_->ok(); }
  const std::string& endpoint() const { return session_->endpoint(); }
  /// Of the last command that failed.
  const Diagnosis& diagnosis() const { return session_->diagnosis(); }

 private:
  std::unique_ptr<Connection> session_;
  Connection::StreamMessage message_;

  explicit ReplicationConnection(std::unique_ptr<Connection> session)
      : session_(std::move(session)) {}
  Error without_slots(Error error, Deadline, std::stop_token);
  Error unexpected(std::string_view what) const;
};

}  // namespace relay::postgres
