#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "inbox/id_conflict.h"
#include "inbox/options.h"
#include "inbox/target.h"
#include "pipeline/sink.h"
#include "postgres/pool.h"

namespace relay::inbox {

/// Writes messages into an inbox table, hundreds of rows a statement, each statement a transaction
/// of its own that is durable when it returns. Delivered means committed; a message that is in the
/// table already, with its id, is a duplicate, and changes nothing. So sending again, after a
/// connection that was lost in a commit or a relay that was killed, writes nothing twice as long as
/// the row is kept. Another message with an id that is there is stored under a longer one, or
/// rejected (`on_id_conflict`).
///
/// Rejected is what PostgreSQL refuses a row for (its type, a constraint, a trigger that raises):
/// it is found by halving the statement, and its neighbours are written. So is a row that a trigger
/// drops. A payload that is not JSON
/// is not refused but stored as raw_payload() says.
///
/// One thread at a time. A connection is borrowed for each delivery.
class InboxSink final : public Sink {
 public:
  /// `database`: the relay's own, for options without a url; may be null.
  InboxSink(Options options, postgres::Pool* database);

  Result<void> open(std::stop_token stop) override;
  std::vector<Outcome> deliver(std::span<const Message> messages, Deadline deadline,
                               std::stop_token stop) override;
  void close() override;

 private:
  /// One delivery under way.
  struct Delivery {
    postgres::Connection& connection;
    std::span<const Message> messages;
    std::vector<Outcome>& outcomes;
    Deadline deadline;
    std::stop_token stop;
    bool ids_are_longer = false;  ///< these are messages whose own ids others have
  };

  /// Messages of one statement.
  struct Part {
    std::size_t first = 0;
    std::size_t count = 0;
  };

  Result<postgres::Lease> borrow(Deadline deadline, std::stop_token stop);
  /// An error: what has no outcome yet is not known.
  Result<void> deliver_all(std::span<const Message> messages, std::vector<Outcome>& outcomes,
                           Deadline deadline, std::stop_token stop);
  /// Starts the statement for a part, whose values these are. False: it did not start.
  bool start(Delivery& delivery, std::span<BinaryArray> values);
  /// Takes what became of a statement that was started; where it failed, and the session did not,
  /// the part is written anew.
  Result<void> complete(Delivery& delivery, Part part, bool started);
  /// Writes a part. An error: what has no outcome yet is not known.
  Result<void> write(Delivery& delivery, Part part);
  Result<postgres::Rows> insert(Delivery& delivery, Part part, bool raw);
  std::vector<BinaryArray> values(std::span<const Target::Column> columns,
                                  std::span<const Message> messages, bool raw) const;
  Deadline due(const Delivery& delivery) const;
  Result<void> note(Delivery& delivery, Part part, const postgres::Rows& rows, bool raw);
  Result<std::vector<Found>> look(Delivery& delivery, std::span<const std::size_t> indexes,
                                  bool raw);
  Result<void> settle(Delivery& delivery, std::span<const std::size_t> indexes,
                      std::span<const Fate> fates);
  bool may_store_again(const Delivery& delivery) const;
  Error reason(Fate fate, const Message& message) const;
  Result<void> store_again(Delivery& delivery, std::span<const std::size_t> indexes);
  void warn_of_conflict(const Delivery& delivery, std::size_t index, const std::string& id);
  Result<void> refused(Delivery& delivery, std::size_t index, const Error& error);
  /// Whether it is the payload that PostgreSQL cannot take, and not something else in the row.
  Result<bool> payload_is_refused(Delivery& delivery, const Message& message);

  const Options options_;
  postgres::Pool* pool_;
  std::unique_ptr<postgres::Pool> own_pool_;
  std::optional<Target> target_;
  ConflictReports conflicts_;
};

/// The error of a statement, as an inbox means it: what a row is refused for is `rejected`, with a
/// remedy.
Error judge(Error error, const std::string& table);

}  // namespace relay::inbox
