#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "backends/pg_inbox/options.h"
#include "backends/pg_inbox/table_session.h"
#include "backends/pg_inbox/target.h"
#include "backends/pg_inbox/verdict.h"
#include "connector/sink.h"
#include "core/dead_letter.h"
#include "postgres/pool.h"

namespace relay::pg_inbox {

/// Writes messages into an inbox table, hundreds of rows a statement, each statement a transaction
/// of its own that is durable when it returns. Delivered means committed; a message that is in the
/// table already, with its id, is a duplicate, and changes nothing. So a message that is sent
/// again, because the connection was lost in a commit or the relay was killed, is not written twice
/// as long as its row is kept. A different message with an existing id is stored under a longer id,
/// or rejected (`on_id_conflict`).
///
/// An acknowledgement needs a commit that waited for the synchronous standbys. The commit of a new
/// row did. The row of a duplicate may be that of a statement whose wait was cancelled: a delivery
/// with duplicates ends with one more commit, which waits for all earlier ones.
///
/// A row that PostgreSQL refuses (its type, a constraint, a trigger that raises) is rejected: it is
/// found by halving the statement, and its neighbours are written. So is a row that a trigger
/// drops. If the reason may not be the row's own, it is compared with other rows: see verdict.h. A
/// payload that is not JSON is not refused but stored in the form of raw_payload().
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
  Inspection inspect(const std::optional<std::string>& subject, std::stop_token stop) override;

 private:
  /// Messages of one statement.
  struct Part {
    std::size_t first = 0;
    std::size_t count = 0;
  };

  /// The state of one delivery.
  struct Delivery {
    TableSession& session;
    std::span<const Message> messages;
    std::vector<Outcome>& outcomes;
    bool ids_are_longer = false;     ///< other messages have the own ids of these
    Part under_way{};                ///< of the last statement
    bool wrote = false;              ///< it stored a new row
    bool unconfirmed = false;        ///< duplicates that no later commit has waited for
    bool again_unconfirmed = false;  ///< the same, for messages stored under longer ids
  };

  Result<postgres::Lease> borrow(Deadline deadline, std::stop_token stop);
  /// On an error, messages without an outcome are unknown.
  Result<void> deliver_all(std::span<const Message> messages, std::vector<Outcome>& outcomes,
                           Deadline deadline, std::stop_token stop);
  Result<void> write_all(Delivery& delivery);
  /// Waits until the rows of the duplicates are durable; until then their outcome is unknown.
  Result<void> confirm_duplicates(Delivery& delivery);
  /// Takes the result of a statement that was started. If it failed and the session did not, the
  /// part is written again.
  Result<void> complete(Delivery& delivery, Part part, bool started);
  /// Writes a part. On an error, messages without an outcome are unknown.
  Result<void> write(Delivery& delivery, Part part);
  Result<postgres::Rows> insert(Delivery& delivery, Part part, bool raw);
  /// Takes the outcomes of a part whose statement succeeded.
  Result<void> written(Delivery& delivery, Part part, const postgres::Rows& rows, bool raw);
  Result<void> note(Delivery& delivery, Part part, const postgres::Rows& rows, bool raw);
  Result<void> settle(Delivery& delivery, std::span<const std::size_t> indexes,
                      std::span<const Fate> fates);
  bool may_store_again(const Delivery& delivery) const;
  Result<void> store_again(Delivery& delivery, std::span<const std::size_t> indexes);
  void warn_of_conflict(const Delivery& delivery, std::size_t index, const std::string& id);
  /// One message whose statement failed.
  Result<void> failed_alone(Delivery& delivery, std::size_t index, Error error);
  Result<void> refused(Delivery& delivery, std::size_t index, const Error& error);
  /// Whether it became a dead letter for this reason before. False if other messages are refused
  /// now as well: the reason may be a common one.
  bool was_guilty(const Message& message, std::string_view code, Suspect::Others others) const;
  /// Whether other messages than this one can be written now. Writes nothing.
  Result<Suspect::Others> look_at_others(Delivery& delivery, std::size_t index);
  /// Makes the next statements smaller, after one that was not answered in time.
  void timed_out(const Delivery& delivery);
  /// Writes one message whose statement took too long by itself. It waits for a lock half as long,
  /// so that a lock is reported as the reason.
  Result<void> write_overdue(Delivery& delivery, std::size_t index);
  Error too_slow() const;
  void keep_sample(const Delivery& delivery);
  const Options options_;
  postgres::Pool* pool_;
  std::unique_ptr<postgres::Pool> own_pool_;
  std::optional<Target> target_;
  std::size_t rows_;  ///< the present limit of a statement
  Suspect suspect_;
  Convictions convictions_;
  std::optional<DeadLetter> sample_;  ///< a recently written message
  SteadyClock::time_point sampled_at_;
  ConflictReports conflicts_;
};

}  // namespace relay::pg_inbox
