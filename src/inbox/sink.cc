#include "inbox/sink.h"

#include <fmt/core.h>

#include <algorithm>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "core/log.h"

namespace relay::inbox {

namespace {

// What a statement's parameters take at most, so that a batch of large messages is cut.
constexpr std::size_t kStatementBytes = 32u << 20;
/// How long a lock on the table is waited for before it is said to be in the way.
constexpr std::chrono::seconds kLook{5};

std::unique_ptr<postgres::Pool> make_pool(const Options& options) {
  if (options.url.empty()) return nullptr;
  postgres::Connection::Options session;
  session.url = options.url;
  session.application_name = "pgtrickle-relay " + options.pipeline;
  session.connect_timeout = options.connect_timeout;
  session.host_credentials = options.host_credentials;
  return std::make_unique<postgres::Pool>(std::move(session), 1);
}

std::size_t statement_end(std::span<const Message> messages, std::size_t first, std::size_t rows) {
  std::size_t bytes = 0;
  std::size_t end = first;
  while (end < messages.size() && end - first < rows) {
    bytes += messages[end].body.size();
    if (end > first && bytes > kStatementBytes) break;
    ++end;
  }
  return end;
}

bool is_about_a_value(const Error& error) {
  return error.code.starts_with("22") || error.code.starts_with("54");
}

}  // namespace

Error judge(Error error, const std::string& table) {
  // A trigger that raises, and a view that does not take the row, refuse a row and nothing else.
  if (error.code.starts_with("P0") || error.code.starts_with("44")) {
    error.error_class = ErrorClass::rejected;
  }
  if (error.error_class == ErrorClass::rejected && error.remedy.empty()) {
    error.remedy = fmt::format(
        "change what table {} refuses it for, or the message's source; then `pgtrickle-relay dlq "
        "retry`",
        table);
  } else if (error.code == "42P10") {
    error.remedy =
        fmt::format("event_id must be unique: ALTER TABLE {} ADD PRIMARY KEY (...);", table);
  }
  return error;
}

InboxSink::InboxSink(Options options, postgres::Pool* database)
    : options_(std::move(options)), pool_(database), own_pool_(make_pool(options_)) {
  if (own_pool_) pool_ = own_pool_.get();
}

Result<postgres::Lease> InboxSink::borrow(Deadline deadline, std::stop_token stop) {
  if (!pool_) {
    return fail(ErrorClass::misconfigured, "no_database", "there is no database to write to",
                "set the relay's postgres_url, or the sink's url");
  }
  return pool_->borrow(deadline, std::move(stop));
}

Result<void> InboxSink::open(std::stop_token stop) {
  const Deadline deadline = Deadline::after(options_.connect_timeout + options_.operation_timeout);
  auto lease = borrow(deadline, stop);
  if (!lease) return fail(lease.error().in_context("opening the inbox"));
  auto target = open_target(**lease, options_, deadline, stop);
  if (!target) return fail(target.error().in_context("opening the inbox"));
  if (!target->columns.empty()) {
    auto taken = see_that_it_takes_rows(**lease, *target, deadline.earlier(Deadline::after(kLook)),
                                        stop);
    if (!taken) return fail(taken.error().in_context("opening the inbox"));
  }
  log::debug("inbox_opened", options_.pipeline, "writing to {} at {}", target->table,
             (*lease)->endpoint());
  target_ = std::move(*target);
  return {};
}

std::vector<Outcome> InboxSink::deliver(std::span<const Message> messages, Deadline deadline,
                                        std::stop_token stop) {
  std::vector<Outcome> outcomes(messages.size(), Outcome::unknown(nullptr));
  const auto done = deliver_all(messages, outcomes, deadline, std::move(stop));
  if (done) return outcomes;
  const auto error = std::make_shared<Error>(done.error().in_context("writing to the inbox"));
  for (Outcome& outcome : outcomes) {
    if (outcome.kind == Outcome::Kind::unknown) outcome.error = error;
  }
  return outcomes;
}

Result<void> InboxSink::deliver_all(std::span<const Message> messages,
                                    std::vector<Outcome>& outcomes, Deadline deadline,
                                    std::stop_token stop) {
  if (!target_) return fail(ErrorClass::transient, "not_open", "the inbox is not open");
  auto lease = borrow(deadline, stop);
  if (!lease) return fail(lease.error());
  const auto cutter = SocketCutter::make(this->lease(), (*lease)->socket());
  if (!cutter) return fail(cutter.error());
  Delivery delivery{**lease, messages, outcomes, deadline, stop};
  Part under_way;
  bool started = false;
  // While PostgreSQL writes one part, the values of the next one are put together.
  for (std::size_t first = 0; first < messages.size();) {
    const std::size_t end = statement_end(messages, first, options_.rows_per_statement);
    const Part next{first, end - first};
    auto arrays = values(delivery, next, false);
    if (auto done = complete(delivery, under_way, started); !done) return done;
    if (!this->lease().holds()) return fail(lease_over());
    started = start(delivery, arrays);
    under_way = next;
    first = end;
  }
  return complete(delivery, under_way, started);
}

bool InboxSink::start(Delivery& delivery, std::span<BinaryArray> values) {
  std::vector<std::string_view> params;
  for (BinaryArray& array : values) params.push_back(array.finish());
  return delivery.connection.send_binary(target_->insert, params, due(delivery), delivery.stop)
      .has_value();
}

Result<void> InboxSink::complete(Delivery& delivery, Part part, bool started) {
  if (part.count == 0) return {};
  if (started) {
    const auto rows = delivery.connection.take_rows(due(delivery), delivery.stop);
    if (rows) {
      note(delivery, part, *rows);
      return {};
    }
    if (!delivery.connection.ok()) return fail(rows.error());
  }
  return write(delivery, part);
}

Result<void> InboxSink::write(Delivery& delivery, Part part) {
  auto rows = insert(delivery, part, false);
  if (rows) {
    note(delivery, part, *rows);
    return {};
  }
  Error error = judge(rows.error(), target_->table);
  if (error.error_class != ErrorClass::rejected) return fail(std::move(error));
  if (part.count == 1) return refused(delivery, part.first, error);
  const std::size_t half = part.count / 2;
  if (auto done = write(delivery, {part.first, half}); !done) return done;
  return write(delivery, {part.first + half, part.count - half});
}

Result<postgres::Rows> InboxSink::insert(Delivery& delivery, Part part, bool raw) {
  auto arrays = values(delivery, part, raw);
  std::vector<std::string_view> params;
  for (BinaryArray& array : arrays) params.push_back(array.finish());
  return delivery.connection.query_binary(target_->insert, params, due(delivery), delivery.stop);
}

std::vector<BinaryArray> InboxSink::values(const Delivery& delivery, Part part, bool raw) const {
  std::vector<BinaryArray> arrays;
  arrays.reserve(target_->columns.size());
  for (const Target::Column& column : target_->columns) {
    BinaryArray& array =
        arrays.emplace_back(column.kind == ColumnKind::bytes ? BinaryArray::Element::bytea
                                                             : BinaryArray::Element::text);
    for (const Message& message : delivery.messages.subspan(part.first, part.count)) {
      add_value(array, column.field, column.kind, message, options_.pipeline, raw);
    }
  }
  return arrays;
}

Deadline InboxSink::due(const Delivery& delivery) const {
  return delivery.deadline.earlier(Deadline::after(options_.operation_timeout));
}

/// Which of the messages were new. Of two with the same id in one statement it is the first.
void InboxSink::note(Delivery& delivery, Part part, const postgres::Rows& rows) {
  const auto outcomes = std::span(delivery.outcomes).subspan(part.first, part.count);
  const bool all = static_cast<std::size_t>(rows.size()) == part.count;
  std::fill(outcomes.begin(), outcomes.end(), all ? Outcome::delivered() : Outcome::duplicate());
  if (all) return;
  if (!target_->ids_are_text) {
    for (int row = 0; row < rows.size(); ++row) {
      outcomes[static_cast<std::size_t>(rows.integer(row, 0) - 1)] = Outcome::delivered();
    }
    return;
  }
  std::unordered_set<std::string_view> written;
  for (int row = 0; row < rows.size(); ++row) written.insert(rows.text(row, 0));
  for (std::size_t i = 0; i < part.count; ++i) {
    if (written.erase(delivery.messages[part.first + i].id) > 0) {
      outcomes[i] = Outcome::delivered();
    }
  }
}

/// One message that PostgreSQL refused: stored raw where its payload is the reason, else rejected.
Result<void> InboxSink::refused(Delivery& delivery, std::size_t index, const Error& error) {
  if (is_about_a_value(error)) {
    const auto payload = payload_is_refused(delivery, delivery.messages[index]);
    if (!payload) return fail(payload.error());
    if (*payload) {
      auto rows = insert(delivery, {index, 1}, true);
      if (rows) {
        note(delivery, {index, 1}, *rows);
        return {};
      }
      Error raw = judge(rows.error(), target_->table);
      if (raw.error_class != ErrorClass::rejected) return fail(std::move(raw));
    }
  }
  delivery.outcomes[index] = Outcome::rejected(std::make_shared<Error>(error));
  return {};
}

Result<bool> InboxSink::payload_is_refused(Delivery& delivery, const Message& message) {
  const auto column =
      std::find_if(target_->columns.begin(), target_->columns.end(),
                   [](const Target::Column& c) { return c.field == InboxField::payload; });
  if (column->kind != ColumnKind::json || message.tombstone) return false;
  const std::string_view params[] = {message.body};
  const auto taken = delivery.connection.query_binary(
      "select $1::pg_catalog.text::pg_catalog.jsonb is null", params,
      delivery.deadline.earlier(Deadline::after(options_.operation_timeout)), delivery.stop);
  if (taken) return false;
  if (is_about_a_value(taken.error())) return true;
  return fail(taken.error());
}

void InboxSink::close() {
  target_.reset();
  if (own_pool_) own_pool_->trim({});
}

}  // namespace relay::inbox
