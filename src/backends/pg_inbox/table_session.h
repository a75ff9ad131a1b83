#pragma once

#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "backends/pg_inbox/id_conflict.h"
#include "backends/pg_inbox/options.h"
#include "backends/pg_inbox/target.h"
#include "backends/pg_inbox/verdict.h"
#include "core/deadline.h"
#include "core/message.h"
#include "postgres/connection.h"

namespace relay::pg_inbox {

/// The statements of one delivery into an inbox, on one connection. Each ends by the delivery's
/// deadline, and after `operation_timeout`. One thread.
class TableSession {
 public:
  /// All arguments outlive the session.
  TableSession(postgres::Connection& connection, const Target& target, const Options& options,
               Deadline deadline, std::stop_token stop)
      : connection_(connection),
        target_(target),
        options_(options),
        deadline_(deadline),
        stop_(std::move(stop)) {}

  bool ok() const { return connection_.ok(); }
  /// About the last statement that failed.
  const postgres::Diagnosis& diagnosis() const { return connection_.diagnosis(); }
  bool failed_by_server() const;
  /// Explains a statement's error, with a remedy. `message`: the only one that it wrote, or null.
  Error judge(Error error, const postgres::Diagnosis& diagnosis, const Message* message) const;
  Error judge(Error error, const Message* message) const {
    return judge(std::move(error), diagnosis(), message);
  }

  /// The values of messages, for `start`.
  std::vector<BinaryArray> values(std::span<const Message> messages) const;
  /// Starts to write the messages with these values. False: it did not start.
  bool start(std::span<BinaryArray> values);
  /// The ids that the started statement has stored.
  Result<postgres::Rows> take();
  /// Writes messages: the ids that were stored. `raw`: payloads in the form of raw_payload().
  Result<postgres::Rows> insert(std::span<const Message> messages, bool raw);
  /// Looks up the ids of messages: one result for each message.
  Result<std::vector<Found>> look(std::span<const Message> messages, bool raw);
  /// Whether PostgreSQL refuses the payload, rather than something else in the row.
  Result<bool> refuses_payload(const Message& message);
  /// Looks the table up again. An error: it does not fit for messages any more.
  Result<void> look_at_table();

  /// Tries one message in a transaction that is rolled back, for up to `share` of the
  /// operation_timeout. Empty: it was written. `free_id` replaces an id that is there already, as
  /// after a crash that left the message stored and not acknowledged.
  Result<std::optional<Blame>> try_to_insert(Message message, std::string_view free_id, int share);
  /// Begins a transaction that waits for a lock half as long as a statement may take, so that the
  /// lock is reported as the reason.
  Result<void> begin_patiently();
  Result<void> end(bool commit);
  /// Waits until all earlier commits are durable, on the synchronous standbys as well.
  Result<void> confirm();

 private:
  Deadline due() const { return deadline_.earlier(Deadline::after(options_.operation_timeout)); }
  std::vector<BinaryArray> values(std::span<const Target::Column> columns,
                                  std::span<const Message> messages, bool raw) const;

  postgres::Connection& connection_;
  const Target& target_;
  const Options& options_;
  const Deadline deadline_;
  const std::stop_token stop_;
};

}  // namespace relay::pg_inbox
