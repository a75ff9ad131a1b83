#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "backends/feed/feed_rows.h"
#include "backends/feed/options.h"
#include "connector/held_position.h"
#include "connector/sink.h"
#include "postgres/pool.h"

namespace relay::feed {

/// Writes changes into a change feed of the relay's own database, hundreds of rows a statement.
/// Each statement is a transaction of its own: it asks whether this pipeline still owns its
/// position, passes over what is written already, and numbers the rest (sql: 252_feed_write.sql).
/// So each change is in the feed exactly once, in order, whatever died when.
///
/// Fenced: another instance owns the pipeline, or the database was set back (a failover to a
/// standby that lagged): what this pipeline has read may not follow what the feed holds. The next
/// owner begins at the position that the database has.
///
/// One thread at a time. A connection is borrowed for each delivery.
class FeedSink final : public Sink {
 public:
  /// `database` and `held` may be null where a configuration is only checked.
  FeedSink(Options options, postgres::Pool* database, std::shared_ptr<HeldPosition> held);

  Result<void> open(std::stop_token stop) override;
  std::vector<Outcome> deliver(std::span<const Message> messages, Deadline deadline,
                               std::stop_token stop) override;
  void close() override { open_ = false; }
  Inspection inspect(const std::optional<std::string>& subject, std::stop_token stop) override;

 private:
  /// A statement under way.
  struct Part {
    FeedRows rows;
    std::size_t end = 0;  ///< of its messages
  };

  Result<postgres::Lease> borrow(Deadline deadline, std::stop_token stop);
  /// Delivers what it can; `settled` counts the messages that are.
  Result<void> deliver_all(std::span<const Message> messages, std::size_t& settled,
                           Deadline deadline, std::stop_token stop);
  Result<Part> next_part(std::span<const Message> messages, std::size_t first) const;
  Result<void> start(postgres::Connection& connection, Part& part,
                     const HeldPosition::Ownership& held, Deadline deadline, std::stop_token stop);
  Result<void> take(postgres::Connection& connection, Deadline deadline, std::stop_token stop);
  Deadline due(Deadline deadline) const;

  const Options options_;
  postgres::Pool* const pool_;
  const std::shared_ptr<HeldPosition> held_;
  bool open_ = false;
  bool refresh_rows_ = false;
  /// Up to where the feed was written when it last answered. Never moves back, so that a feed that
  /// was set back is noticed.
  std::optional<Place> written_;
};

}  // namespace relay::feed
