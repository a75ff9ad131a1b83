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
  /// All of them outlive the session.
  TableSession(postgres::Connection& connection, const Target& target, const Options& options,
               Deadline deadline, std::stop_token stop)
      : connection_(connection),
        target_(target),
        options_(options),
        deadline_(deadline),
        stop_(std::move(stop)) {}

  bool ok() const { return connection_.ok(); }
  /// Of the statement that has failed last.
  const postgres::Diagnosis& diagnosis() const { return connection_.diagnosis(); }
  bool failed_by_server() const;
  /// What a statement's error means, with a remedy. `message`: the only one that it had, or null.
  Error judge(Error error, const postgres::Diagnosis& diagnosis, const Message* message) const;
  Error judge(Error error, const Message* message) const {
    return judge(std::move(error), diagnosis(), message);
  }

  /// The values of messages, for `start`.
  std::vector<BinaryArray> values(std::span<const Message> messages) const;
  /// Starts to write messages, whose values these are. False: it did not start.
  bool start(std::span<BinaryArray> values);
  /// The ids that what was started has stored.
  Result<postgres::Rows> take();
  /// Writes messages: the ids that were stored. `raw`: payloads as raw_payload() says.
  Result<postgres::Rows> insert(std::span<const Message> messages, bool raw);
  /// What is stored now under the ids of messages, one a message.
  Result<std::vector<Found>> look(std::span<const Message> messages, bool raw);
  /// Whether it is the payload that PostgreSQL cannot take, and not something else in the row.
  Result<bool> refuses_payload(const Message& message);
  /// Looks at the table anew: an error where it is not fit for messages any more.
  Result<void> look_at_table();

  /// What becomes of one message in a transaction that is rolled back, `share` of the
  /// operation_timeout long. Empty: it was written. `free_id` is its id where its own is there
  /// already, as after a crash that left it stored and not acknowledged.
  Result<std::optional<Blame>> try_to_insert(Message message, std::string_view free_id, int share);
  /// Begins a transaction in which a lock is waited for half as long as a statement may take, so
  /// that it shows.
  Result<void> begin_patiently();
  Result<void> end(bool commit);
  /// Waits until all that was committed before is durable, on the synchronous standbys as well.
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
