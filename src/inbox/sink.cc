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

// Of other messages, how many are compared with one that may not be at fault itself.
constexpr std::size_t kCompared = 8;

// A message to compare with later ones is kept this often, and if it is not larger.
constexpr std::chrono::seconds kSampleEvery{1};
constexpr std::size_t kSampleBytes = 64u << 10;

// It writes WAL, so that its commit waits as that of a row does. (A pooler may have dropped what
// the session was set to.)
constexpr std::string_view kConfirm =
    "select pg_catalog.pg_logical_emit_message(true, 'pgtrickle'::text, ''::text), "
    "case when pg_catalog.current_setting('synchronous_commit') in ('off', 'local') "
    "then pg_catalog.set_config('synchronous_commit', 'on', true) end "
    "where pg_catalog.current_setting('synchronous_standby_names') <> ''";

/// Of the statement that has just failed.
bool is_of_server(const postgres::Connection& connection) {
  const postgres::Diagnosis& diagnosis = connection.diagnosis();
  return !connection.ok() || diagnosis.state.empty() || blame_for(diagnosis) == Blame::server;
}

bool is_about_a_value(const Error& error) {
  return error.code.starts_with("22") || error.code.starts_with("54");
}

}  // namespace

InboxSink::InboxSink(Options options, postgres::Pool* database)
    : options_(std::move(options)),
      pool_(database),
      own_pool_(make_pool(options_)),
      rows_(options_.rows_per_statement) {
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
  const auto done = write_all(delivery);
  if (!done && done.error().code == "timeout") timed_out(delivery);
  const auto confirmed = confirm_duplicates(delivery);
  if (delivery.wrote) keep_sample(delivery);
  return done ? confirmed : done;
}

Result<void> InboxSink::write_all(Delivery& delivery) {
  const auto messages = delivery.messages;
  Part under_way;
  bool started = false;
  // While PostgreSQL writes one part, the values of the next one are put together.
  for (std::size_t first = 0; first < messages.size();) {
    if (suspect_.is_overdue(messages[first].id)) {
      if (auto done = complete(delivery, std::exchange(under_way, {}), started); !done) return done;
      if (auto done = confirm_duplicates(delivery); !done) return done;
      if (auto done = write_overdue(delivery, first++); !done) return done;
      continue;
    }
    const std::size_t end = statement_end(messages, first, rows_);
    const Part next{first, end - first};
    auto arrays = values(target_->columns, messages.subspan(first, next.count), false);
    if (auto done = complete(delivery, under_way, started); !done) return done;
    if (!lease().holds()) return fail(lease_over());
    started = start(delivery, arrays);
    under_way = next;
    first = end;
  }
  return complete(delivery, under_way, started);
}

Result<void> InboxSink::confirm_duplicates(Delivery& delivery) {
  if (!delivery.unconfirmed) return {};
  postgres::Connection& connection = delivery.connection;
  const Result<postgres::Rows> done =
      connection.ok() ? connection.query(kConfirm, {}, due(delivery), delivery.stop)
                      : fail(ErrorClass::transient, "connection", "the session has ended");
  if (done) {
    delivery.unconfirmed = false;
    return {};
  }
  std::replace_if(
      delivery.outcomes.begin(), delivery.outcomes.end(),
      [](const Outcome& outcome) { return outcome.kind == Outcome::Kind::duplicate; },
      Outcome::unknown(nullptr));
  return fail(judge(done.error(), connection.diagnosis(), destination(delivery), nullptr)
                  .in_context("waiting until duplicates are durable"));
}

void InboxSink::timed_out(const Delivery& delivery) {
  const Part part = delivery.under_way;
  if (part.count == 0) return;
  rows_ = std::max<std::size_t>(part.count / 2, 1);
  if (part.count == 1) suspect_.overdue(delivery.messages[part.first].id, SteadyClock::now());
}

void InboxSink::keep_sample(const Delivery& delivery) {
  const auto now = SteadyClock::now();
  if (sample_ && now - sampled_at_ < kSampleEvery) return;
  for (std::size_t i = delivery.messages.size(); i-- > 0;) {
    if (delivery.outcomes[i].kind != Outcome::Kind::delivered) continue;
    if (delivery.messages[i].body.size() > kSampleBytes) continue;
    sample_ = DeadLetter::from(delivery.messages[i], {});
    sampled_at_ = now;
    return;
  }
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
    delivery.under_way = part;
    const auto rows = delivery.connection.take_rows(due(delivery), delivery.stop);
    if (rows) return written(delivery, part, *rows, false);
    if (!delivery.connection.ok()) {
      return fail(
          judge(rows.error(), delivery.connection.diagnosis(), destination(delivery), nullptr));
    }
  }
  return write(delivery, part);
}

Result<void> InboxSink::written(Delivery& delivery, Part part, const postgres::Rows& rows,
                                bool raw) {
  delivery.unconfirmed = false;
  if (auto noted = note(delivery, part, rows, raw); !noted) return noted;
  delivery.under_way = {};
  rows_ = std::min(rows_ * 2, options_.rows_per_statement);
  const auto outcomes = std::span(delivery.outcomes).subspan(part.first, part.count);
  const bool wrote = std::any_of(outcomes.begin(), outcomes.end(), [](const Outcome& outcome) {
    return outcome.kind == Outcome::Kind::delivered;
  });
  delivery.wrote = delivery.wrote || wrote;
  // The commit of a new row has waited for all that was committed before it.
  delivery.unconfirmed = delivery.unconfirmed || !wrote;
  return {};
}

Result<void> InboxSink::write(Delivery& delivery, Part part) {
  const auto rows = insert(delivery, part, false);
  if (rows) return written(delivery, part, *rows, false);
  const postgres::Diagnosis& diagnosis = delivery.connection.diagnosis();
  Error error = judge(rows.error(), diagnosis, destination(delivery),
                      part.count == 1 ? &delivery.messages[part.first] : nullptr);
  if (is_of_server(delivery.connection)) return fail(std::move(error));
  if (part.count == 1) return failed_alone(delivery, part.first, std::move(error));
  const std::size_t half = part.count / 2;
  if (auto done = write(delivery, {part.first, half}); !done) return done;
  return write(delivery, {part.first + half, part.count - half});
}

Result<postgres::Rows> InboxSink::insert(Delivery& delivery, Part part, bool raw) {
  delivery.under_way = part;
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
      // It was deleted in between, unless the table has come to hold different ids for equal. What
      // it was is not known, so the message is tried again: its id is free now.
      const auto target = open_target(delivery.connection, options_, due(delivery), delivery.stop);
      if (!target) return fail(target.error());
      outcome = Outcome::unknown(share(reason(fates[i], delivery.messages[indexes[i]])));
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

/// Why a message is not stored that PostgreSQL did not refuse.
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
  } else if (fate == Fate::gone) {
    error = {ErrorClass::transient,
             "row_gone",
             fmt::format("the row of table {} that had the id {} was deleted meanwhile", table, id),
             {},
             {}};
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
  delivery.unconfirmed = again.unconfirmed;
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

Result<void> InboxSink::failed_alone(Delivery& delivery, std::size_t index, Error error) {
  const Blame blame = blame_for(delivery.connection.diagnosis());
  const bool raised = delivery.connection.diagnosis().raised();
  if (blame == Blame::row) return refused(delivery, index, error);
  if (blame == Blame::moment) return fail(std::move(error));
  suspect_.refused(delivery.messages[index].id, SteadyClock::now());
  const auto others = look_at_others(delivery, index);
  if (!others) return fail(others.error());
  if (!suspect_.is_guilty(blame, raised, *others, SteadyClock::now())) {
    return fail(std::move(error));
  }
  suspect_.clear();
  // What was in its way as well as in theirs may have gone in between.
  const auto rows = insert(delivery, {index, 1}, false);
  if (rows) return written(delivery, {index, 1}, *rows, false);
  if (is_of_server(delivery.connection)) return fail(rows.error());
  error.error_class = ErrorClass::rejected;
  delivery.outcomes[index] = Outcome::rejected(share(std::move(error)));
  return {};
}

Result<void> InboxSink::write_overdue(Delivery& delivery, std::size_t index) {
  postgres::Connection& connection = delivery.connection;
  const std::string_view id = delivery.messages[index].id;
  const auto others = look_at_others(delivery, index);
  if (!others) return fail(others.error());
  if (suspect_.is_guilty(Blame::doubtful, false, *others, SteadyClock::now())) {
    suspect_.clear();
    delivery.outcomes[index] = Outcome::rejected(share(too_slow(delivery)));
    return {};
  }
  const auto limit = options_.operation_timeout.count();
  const std::string begin =
      fmt::format("begin; set local lock_timeout = {}; set local statement_timeout = {}",
                  std::max<std::int64_t>(limit / 2, 1), std::max<std::int64_t>(limit * 3 / 4, 1));
  if (auto begun = connection.script(begin, due(delivery), delivery.stop); !begun) return begun;
  const auto rows = insert(delivery, {index, 1}, false);
  delivery.under_way = {};  // from here on it is not this row that takes long
  if (!connection.ok()) return fail(rows.error());
  const postgres::Diagnosis why = rows ? postgres::Diagnosis() : connection.diagnosis();
  const std::string_view end = rows ? "commit" : "rollback";
  if (auto ended = connection.script(end, due(delivery), delivery.stop); !ended) return ended;
  if (rows) {
    suspect_.clear();
    return written(delivery, {index, 1}, *rows, false);
  }
  if (why.state == "57014" && !why.raised()) suspect_.overdue(id, SteadyClock::now());
  const Blame blame = blame_for(why);
  if (blame == Blame::moment || blame == Blame::server) {
    return fail(judge(rows.error(), why, destination(delivery), &delivery.messages[index]));
  }
  suspect_.clear();
  return write(delivery, {index, 1});
}

Error InboxSink::too_slow(const Delivery& delivery) const {
  return {ErrorClass::rejected,
          "timeout",
          fmt::format("{}: writing this row took longer than {} ms each time, alone and without "
                      "waiting for a lock",
                      delivery.connection.endpoint(), options_.operation_timeout.count()),
          fmt::format("see what the triggers and constraints of table {} do with it, or raise "
                      "operation_timeout; then `pgtrickle-relay dlq retry`",
                      target_->table),
          {}};
}

/// Messages that follow in this delivery, others each time; then one that was written before: what
/// was written proves nothing about the present.
Result<Suspect::Others> InboxSink::look_at_others(Delivery& delivery, std::size_t index) {
  auto found = Suspect::Others::none;
  std::vector<Header> headers;
  std::vector<Message> others;
  const std::size_t behind = delivery.messages.size() - index - 1;
  const std::size_t step = std::max<std::size_t>(behind / kCompared, 1);
  const auto turn = static_cast<std::size_t>(suspect_.tries()) % step;
  for (std::size_t at = index + 1 + turn;
       at < delivery.messages.size() && others.size() < kCompared; at += step) {
    others.push_back(delivery.messages[at]);
  }
  if (delivery.wrote) {
    sampled_at_ = {};
    keep_sample(delivery);
  }
  if (sample_) {
    // Its own id is there already.
    others.push_back(sample_->to_message(headers));
    others.back().id = delivery.messages[index].id;
  }
  for (const Message& other : others) {
    const auto blame = try_to_write(delivery, other);
    if (!blame) return fail(blame.error());
    if (!*blame) return Suspect::Others::written;
    if (**blame != Blame::row) found = Suspect::Others::refused;
  }
  return found;
}

Result<std::optional<Blame>> InboxSink::try_to_write(Delivery& delivery, const Message& message) {
  postgres::Connection& connection = delivery.connection;
  std::vector<Outcome> ignored(1);
  Delivery trial{connection, std::span(&message, 1), ignored, delivery.deadline, delivery.stop};
  const std::string begin =
      fmt::format("begin; set local statement_timeout = {}",
                  std::max<std::int64_t>(options_.operation_timeout.count() / (2 * kCompared), 1));
  if (auto begun = connection.script(begin, due(delivery), delivery.stop); !begun) {
    return fail(begun.error());
  }
  const auto rows = insert(trial, {0, 1}, false);
  Result<void> done;
  if (!rows) done = fail(rows.error());
  // What is put off until the commit counts as well.
  if (done) done = connection.script("set constraints all immediate", due(delivery), delivery.stop);
  std::optional<Blame> blame;
  if (!done) {
    if (!connection.ok()) return fail(done.error());
    blame = blame_for(connection.diagnosis());
  } else if (rows->empty()) {
    blame = Blame::row;  // it is there already, and says nothing
  }
  if (auto undone = connection.script("rollback", due(delivery), delivery.stop); !undone) {
    return fail(undone.error());
  }
  return blame;
}

Destination InboxSink::destination(const Delivery& delivery) const {
  const char* role = PQuser(delivery.connection.handle());
  return {delivery.connection.endpoint(), target_->table,
          postgres::Connection::quote_identifier(role == nullptr ? "" : role)};
}

/// One message that PostgreSQL refused: stored raw where its payload is the reason, else rejected.
Result<void> InboxSink::refused(Delivery& delivery, std::size_t index, const Error& error) {
  if (is_about_a_value(error)) {
    const auto payload = payload_is_refused(delivery, delivery.messages[index]);
    if (!payload) return fail(payload.error());
    if (*payload) {
      const auto rows = insert(delivery, {index, 1}, true);
      if (rows) return written(delivery, {index, 1}, *rows, true);
      const postgres::Diagnosis& diagnosis = delivery.connection.diagnosis();
      if (is_of_server(delivery.connection) || blame_for(diagnosis) == Blame::moment) {
        return fail(
            judge(rows.error(), diagnosis, destination(delivery), &delivery.messages[index]));
      }
    }
  }
  delivery.outcomes[index] = Outcome::rejected(share(error));
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
