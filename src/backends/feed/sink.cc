#include "backends/feed/sink.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "connector/rewound.h"
#include "core/log.h"

namespace relay::feed {

namespace {

constexpr std::chrono::seconds kOpenTimeout{10};

// The largest total size of a statement's rows.
constexpr std::size_t kStatementBytes = 32u << 20;

constexpr std::string_view kFind =
    "select f.full_refresh_rows from pgtrickle_internal.change_feeds f "
    "where f.feed_name = $1 and f.pipeline = $2";

constexpr std::string_view kWrite =
    "select outbox_id, row_num from pgtrickle.relay_write_feed($1::text, $2::text, $3::text, "
    "$4::text::uuid, $5::text::uuid, $6::text::bigint, $7::text::bigint, $8::bigint[], "
    "$9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[])";

Error gone(const Options& options) {
  return {ErrorClass::misconfigured,
          "no_feed",
          fmt::format("there is no change feed pgtrickle_changes.{} of pipeline {}", options.feed,
                      options.pipeline),
          "create_change_feed('the table') makes a feed together with its pipeline",
          {}};
}

Error fenced(const Options& options) {
  return {ErrorClass::fenced,
          "fenced",
          fmt::format("another instance owns pipeline {}", options.pipeline),
          "",
          {}};
}

Error set_back(const Options& options) {
  return {ErrorClass::fenced,
          std::string(kRewound),
          fmt::format("change feed pgtrickle_changes.{} is not as far as it was: the database was "
                      "set back",
                      options.feed),
          "",
          {}};
}

/// An error of one statement. What PostgreSQL refuses is no fault of a single message: without it
/// the feed would have a hole, so that nothing of it may be set aside.
Error explained(Error error, const Options& options) {
  if (error.error_class == ErrorClass::rejected) error.error_class = ErrorClass::misconfigured;
  return error.in_context("writing the change feed " + options.feed);
}

}  // namespace

FeedSink::FeedSink(Options options, postgres::Pool* database, std::shared_ptr<HeldPosition> held)
    : options_(std::move(options)), pool_(database), held_(std::move(held)) {}

Deadline FeedSink::due(Deadline deadline) const {
  return deadline.earlier(Deadline::after(options_.operation_timeout));
}

Result<postgres::Lease> FeedSink::borrow(Deadline deadline, std::stop_token stop) {
  if (!pool_) {
    return fail(ErrorClass::misconfigured, "no_database", "there is no database to write to",
                "set the relay's postgres_url");
  }
  return pool_->borrow(deadline, std::move(stop));
}

Result<void> FeedSink::open(std::stop_token stop) {
  const Deadline deadline = Deadline::after(kOpenTimeout);
  auto lease = borrow(deadline, stop);
  if (!lease) return fail(lease.error().in_context("opening the change feed"));
  const auto found =
      (*lease)->query(kFind, {options_.feed, options_.pipeline}, deadline, std::move(stop));
  if (!found) return fail(explained(found.error(), options_));
  if (found->empty()) return fail(gone(options_));
  refresh_rows_ = found->boolean(0, 0);
  open_ = true;
  return {};
}

std::vector<Outcome> FeedSink::deliver(std::span<const Message> messages, Deadline deadline,
                                       std::stop_token stop) {
  std::size_t settled = 0;
  const auto done = deliver_all(messages, settled, deadline, std::move(stop));
  std::vector<Outcome> outcomes(messages.size(), Outcome::delivered());
  if (!done) {
    std::fill(outcomes.begin() + static_cast<std::ptrdiff_t>(settled), outcomes.end(),
              Outcome::unknown(share(done.error())));
  }
  return outcomes;
}

Result<void> FeedSink::deliver_all(std::span<const Message> messages, std::size_t& settled,
                                   Deadline deadline, std::stop_token stop) {
  if (!open_) return fail(ErrorClass::transient, "not_open", "the change feed is not open");
  const auto held = held_ ? held_->get() : std::nullopt;
  if (!held) {
    return fail(ErrorClass::misconfigured, "no_position",
                "the sink feed writes what an outbox of the same database holds",
                "let create_change_feed() configure the pipeline");
  }
  auto lease = borrow(deadline, stop);
  if (!lease) return fail(lease.error());
  const auto cutter = SocketCutter::make(this->lease(), (*lease)->socket());
  if (!cutter) return fail(cutter.error());
  postgres::Connection& connection = **lease;

  // While PostgreSQL writes one part, the rows of the next one are put together.
  auto part = next_part(messages, 0);
  while (true) {
    if (!part) return fail(part.error());
    const std::size_t end = part->end;
    const bool writes = !part->rows.empty();
    if (writes) {
      if (!this->lease().holds()) return fail(lease_over());
      if (auto begun = start(connection, *part, *held, deadline, stop); !begun) return begun;
    }
    if (end < messages.size()) part = next_part(messages, end);
    if (writes) {
      if (auto taken = take(connection, deadline, stop); !taken) return taken;
    }
    settled = end;
    if (end == messages.size()) return {};
  }
}

Result<FeedSink::Part> FeedSink::next_part(std::span<const Message> messages,
                                           std::size_t first) const {
  Part part{FeedRows(refresh_rows_), first};
  while (part.end < messages.size() && part.rows.count() < options_.rows_per_statement) {
    const Message& message = messages[part.end];
    if (!part.rows.empty() && part.rows.bytes() + message.body.size() > kStatementBytes) break;
    if (auto added = part.rows.add(message); !added) return fail(added.error());
    ++part.end;
  }
  return part;
}

Result<void> FeedSink::start(postgres::Connection& connection, Part& part,
                             const HeldPosition::Ownership& held, Deadline deadline,
                             std::stop_token stop) {
  const std::string after_id = written_ ? std::to_string(written_->outbox_id) : std::string();
  const std::string after_row = written_ ? std::to_string(written_->row_num) : std::string();
  const std::string_view none;  // NULL
  std::vector<std::string_view> params = {options_.feed,
                                          held.group,
                                          options_.pipeline,
                                          held.incarnation,
                                          held.token,
                                          written_ ? std::string_view(after_id) : none,
                                          written_ ? std::string_view(after_row) : none};
  const auto arrays = part.rows.finish();
  params.insert(params.end(), arrays.begin(), arrays.end());
  auto sent = connection.send_binary(kWrite, params, due(deadline), std::move(stop));
  if (!sent) return fail(explained(sent.error(), options_));
  return {};
}

Result<void> FeedSink::take(postgres::Connection& connection, Deadline deadline,
                            std::stop_token stop) {
  const auto answer = connection.take_rows(due(deadline), std::move(stop));
  if (!answer) return fail(explained(answer.error(), options_));
  if (answer->empty() || answer->is_null(0, 0)) return fail(fenced(options_));
  const Place written{answer->integer(0, 0), answer->integer(0, 1)};
  if (written_ && written < *written_) return fail(set_back(options_));
  written_ = written;
  return {};
}

Inspection FeedSink::inspect(const std::optional<std::string>&, std::stop_token stop) {
  Inspection found = Inspection::of(open(std::move(stop)));
  close();
  return found;
}

}  // namespace relay::feed
