#include "inbox/sink.h"

#include <fmt/core.h>

#include <algorithm>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "core/log.h"
#include "inbox/id_conflict.h"

namespace relay::inbox {

namespace {

// What a statement's parameters take at most, so that a batch of large messages is cut.
constexpr std::size_t kStatementBytes = 32u << 20;

std::unique_ptr<postgres::Pool> make_pool(const Options& options) {
  if (options.url.empty()) return nullptr;
  postgres::Connection::Options session;
  session.url = options.url;
  session.application_name = "pgtrickle-relay " + options.pipeline;
  session.connect_timeout = options.connect_timeout;
  session.host_credentials = options.host_credentials;
  return std::make_unique<postgres::Pool>(std::move(session), 1);
}

/// An id as an error shows it.
std::string shown(std::string_view id) {
  constexpr std::size_t kLongest = 200;
  if (id.size() <= kLongest) return std::string(id);
  return fmt::format("{}...", id.substr(0, kLongest));
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
    auto arrays = values(target_->columns, messages.subspan(first, next.count), false);
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
    if (rows) return note(delivery, part, *rows, false);
    if (!delivery.connection.ok()) return fail(rows.error());
  }
  return write(delivery, part);
}

Result<void> InboxSink::write(Delivery& delivery, Part part) {
  auto rows = insert(delivery, part, false);
  if (rows) return note(delivery, part, *rows, false);
  Error error = judge(rows.error(), target_->table);
  if (error.error_class != ErrorClass::rejected) return fail(std::move(error));
  if (part.count == 1) return refused(delivery, part.first, error);
  const std::size_t half = part.count / 2;
  if (auto done = write(delivery, {part.first, half}); !done) return done;
  return write(delivery, {part.first + half, part.count - half});
}

Result<postgres::Rows> InboxSink::insert(Delivery& delivery, Part part, bool raw) {
  auto arrays = values(target_->columns, delivery.messages.subspan(part.first, part.count), raw);
  std::vector<std::string_view> params;
  for (BinaryArray& array : arrays) params.push_back(array.finish());
  return delivery.connection.query_binary(target_->insert, params, due(delivery), delivery.stop);
}

std::vector<BinaryArray> InboxSink::values(std::span<const Target::Column> columns,
                                           std::span<const Message> messages, bool raw) const {
  std::vector<BinaryArray> arrays;
  arrays.reserve(columns.size());
  for (const Target::Column& column : columns) {
    BinaryArray& array =
        arrays.emplace_back(column.kind == ColumnKind::bytes ? BinaryArray::Element::bytea
                                                             : BinaryArray::Element::text);
    for (const Message& message : messages) {
      add_value(array, column.field, column.kind, message, options_.pipeline, raw);
    }
  }
  return arrays;
}

Deadline InboxSink::due(const Delivery& delivery) const {
  return delivery.deadline.earlier(Deadline::after(options_.operation_timeout));
}

/// What became of the messages of a statement that returned the ids it stored. Where it has not
/// stored all, a second statement looks why: the first one's snapshot may be older than the rows
/// that it left in place.
Result<void> InboxSink::note(Delivery& delivery, Part part, const postgres::Rows& rows, bool raw) {
  const auto outcomes = std::span(delivery.outcomes).subspan(part.first, part.count);
  if (static_cast<std::size_t>(rows.size()) == part.count) {
    std::fill(outcomes.begin(), outcomes.end(), Outcome::delivered());
    return {};
  }
  std::unordered_set<std::string_view> written;
  for (int row = 0; row < rows.size(); ++row) written.insert(rows.text(row, 0));
  std::vector<std::size_t> left;
  for (std::size_t i = part.first; i < part.first + part.count; ++i) {
    const bool is_known = target_->ids_are_text && !target_->may_change_rows;
    if (is_known && written.erase(delivery.messages[i].id) > 0) {
      delivery.outcomes[i] = Outcome::delivered();
    } else {
      left.push_back(i);
    }
  }
  const auto found = look(delivery, left, raw);
  if (!found) return fail(found.error());
  return settle(delivery, left, fates(*found, std::move(written)));
}

/// What is stored now under the ids of some messages, one a message.
Result<std::vector<Found>> InboxSink::look(Delivery& delivery, std::span<const std::size_t> indexes,
                                           bool raw) {
  std::vector<Message> messages;
  for (const std::size_t index : indexes) messages.push_back(delivery.messages[index]);
  auto arrays = values(target_->compared(), messages, raw);
  std::vector<std::string_view> params;
  for (BinaryArray& array : arrays) params.push_back(array.finish());
  params.push_back(target_->table);
  const auto rows =
      delivery.connection.query_binary(target_->look, params, due(delivery), delivery.stop);
  if (!rows) return fail(rows.error());
  std::vector<Found> found;
  for (int row = 0; row < rows->size(); ++row) {
    found.push_back({.id = std::string(rows->text(row, 0)),
                     .found = rows->boolean(row, 1),
                     .same = rows->boolean(row, 2),
                     .changes = rows->boolean(row, 3) || target_->may_change_rows,
                     .hides = rows->boolean(row, 4)});
  }
  return found;
}

Result<void> InboxSink::settle(Delivery& delivery, std::span<const std::size_t> indexes,
                               std::span<const Fate> fates) {
  std::vector<std::size_t> conflicts;
  for (std::size_t i = 0; i < indexes.size(); ++i) {
    Outcome& outcome = delivery.outcomes[indexes[i]];
    const bool conflict = fates[i] == Fate::conflict || fates[i] == Fate::unclear;
    if (fates[i] == Fate::stored) {
      outcome = Outcome::delivered();
    } else if (fates[i] == Fate::duplicate ||
               (conflict && options_.on_id_conflict == OnIdConflict::ignore)) {
      outcome = Outcome::duplicate();
    } else if (fates[i] == Fate::gone) {
      // It was deleted in between, unless the table has come to hold different ids for equal.
      const auto target = open_target(delivery.connection, options_, due(delivery), delivery.stop);
      if (!target) return fail(target.error());
      outcome = Outcome::duplicate();
    } else if (fates[i] == Fate::conflict && may_store_again(delivery)) {
      conflicts.push_back(indexes[i]);
      continue;
    } else {
      outcome = Outcome::rejected(share(reason(fates[i], delivery.messages[indexes[i]])));
    }
    outcome.id_conflict = conflict;
  }
  return conflicts.empty() ? Result<void>() : store_again(delivery, conflicts);
}

bool InboxSink::may_store_again(const Delivery& delivery) const {
  return options_.on_id_conflict == OnIdConflict::store && target_->ids_can_grow &&
         !delivery.ids_are_longer;
}

/// Why a message is a dead letter that PostgreSQL did not refuse.
Error InboxSink::reason(Fate fate, const Message& message) const {
  Error error{ErrorClass::rejected, "id_conflict", {}, {}, {}};
  const std::string id = shown(message.id);
  const std::string& table = target_->table;
  if (fate == Fate::dropped) {
    error.code = "row_dropped";
    error.message = fmt::format(
        "a BEFORE trigger of table {} dropped the row with the id {}, or stored it under another "
        "id",
        table, id);
    error.remedy = "let the trigger return the row, with its id; then `pgtrickle-relay dlq retry`";
  } else if (fate == Fate::hidden) {
    error.message = fmt::format(
        "table {} has the id {} already, in a row that row security hides from the relay", table,
        id);
    error.remedy =
        "let a policy show all rows to the relay's role; then `pgtrickle-relay dlq "
        "retry`";
  } else {
    error.message = fmt::format(
        "table {} has the id {} already, in a row with another payload, key or type", table, id);
    error.remedy = "give each message an id of its own (id_from, id_prefix of the source)";
    if (fate == Fate::unclear) {
      error.message += ", which a trigger may have changed";
      error.remedy += "; where a trigger changes rows, set on_id_conflict = \"ignore\"";
    }
  }
  return error;
}

/// Stores messages under longer ids, because others have theirs.
Result<void> InboxSink::store_again(Delivery& delivery, std::span<const std::size_t> indexes) {
  if (!lease().holds()) return fail(lease_over());
  std::vector<std::string> ids;
  std::vector<Message> messages;
  for (const std::size_t index : indexes) {
    messages.push_back(delivery.messages[index]);
    ids.push_back(id_in_conflict(messages.back()));
  }
  for (std::size_t i = 0; i < ids.size(); ++i) messages[i].id = ids[i];
  std::vector<Outcome> outcomes(messages.size(), Outcome::unknown(nullptr));
  Delivery again{delivery.connection, messages, outcomes, delivery.deadline, delivery.stop, true};
  const auto done = write(again, {0, messages.size()});
  for (std::size_t i = 0; i < indexes.size(); ++i) {
    Outcome& outcome = delivery.outcomes[indexes[i]];
    outcome = outcomes[i];
    if (outcome.kind == Outcome::Kind::rejected) {
      Error error = reason(Fate::conflict, delivery.messages[indexes[i]]);
      error.message += fmt::format("; under the id {}: {}", shown(ids[i]), outcome.error->message);
      outcome.error = share(std::move(error));
    }
    outcome.id_conflict =
        outcome.kind == Outcome::Kind::rejected || outcome.kind == Outcome::Kind::delivered;
    if (outcome.kind == Outcome::Kind::delivered) warn_of_conflict(delivery, indexes[i], ids[i]);
  }
  return done;
}

void InboxSink::warn_of_conflict(const Delivery& delivery, std::size_t index,
                                 const std::string& id) {
  const std::size_t count = conflicts_.note(SteadyClock::now());
  if (count == 0) return;
  log::warn("id_conflict", options_.pipeline,
            "table {} has the id {} already, in a row with another payload, key or type; the "
            "message is stored as {}{}",
            target_->table, shown(delivery.messages[index].id), shown(id),
            count == 1 ? std::string()
                       : fmt::format("; {} others since the last line like this", count - 1));
}

/// One message that PostgreSQL refused: stored raw where its payload is the reason, else rejected.
Result<void> InboxSink::refused(Delivery& delivery, std::size_t index, const Error& error) {
  if (is_about_a_value(error)) {
    const auto payload = payload_is_refused(delivery, delivery.messages[index]);
    if (!payload) return fail(payload.error());
    if (*payload) {
      auto rows = insert(delivery, {index, 1}, true);
      if (rows) return note(delivery, {index, 1}, *rows, true);
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
