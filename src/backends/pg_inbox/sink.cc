#include "backends/pg_inbox/sink.h"

#include <fmt/core.h>

#include <algorithm>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "backends/pg_inbox/id_conflict.h"
#include "core/log.h"

namespace relay::pg_inbox {

namespace {

// The largest total size of a statement's parameters: a batch of large messages is cut.
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

// How many other messages a refused one is compared with, if the fault may not be its own.
constexpr int kCompared = 8;

/// Identifies a message and the reason for its failure.
std::string accusation(const Message& message, std::string_view code) {
  return fmt::format("{} {}", code, id_in_conflict(message));
}

// How often a message is kept to compare later ones with, and how large it may be.
constexpr std::chrono::seconds kSampleEvery{1};
constexpr std::size_t kSampleBytes = 64u << 10;

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
  TableSession session(**lease, *target_, options_, deadline, stop);
  Delivery delivery{session, messages, outcomes};
  const auto done = write_all(delivery);
  if (!done && done.error().code == "timeout") timed_out(delivery);
  const auto confirmed = confirm_duplicates(delivery);
  if (delivery.wrote || !sample_) keep_sample(delivery);
  return done ? confirmed : done;
}

Result<void> InboxSink::write_all(Delivery& delivery) {
  const auto messages = delivery.messages;
  Part under_way;
  bool started = false;
  // While PostgreSQL writes one part, the values of the next one are built.
  for (std::size_t first = 0; first < messages.size();) {
    if (suspect_.is_overdue(messages[first].id)) {
      if (auto done = complete(delivery, std::exchange(under_way, {}), started); !done) return done;
      if (auto done = confirm_duplicates(delivery); !done) return done;
      if (auto done = write_overdue(delivery, first++); !done) return done;
      continue;
    }
    const std::size_t end = statement_end(messages, first, rows_);
    const Part next{first, end - first};
    auto arrays = delivery.session.values(messages.subspan(first, next.count));
    if (auto done = complete(delivery, under_way, started); !done) return done;
    if (!lease().holds()) return fail(lease_over());
    started = delivery.session.start(arrays);
    under_way = next;
    first = end;
  }
  return complete(delivery, under_way, started);
}

Result<void> InboxSink::confirm_duplicates(Delivery& delivery) {
  if (!delivery.unconfirmed) return {};
  const auto done = delivery.session.confirm();
  if (done) {
    delivery.unconfirmed = false;
    return {};
  }
  std::replace_if(
      delivery.outcomes.begin(), delivery.outcomes.end(),
      [](const Outcome& outcome) { return outcome.kind == Outcome::Kind::duplicate; },
      Outcome::unknown(nullptr));
  return fail(done.error().in_context("waiting until duplicates are durable"));
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
    // A row that another delivery has stored counts as well.
    const auto kind = delivery.outcomes[i].kind;
    if (kind != Outcome::Kind::delivered && kind != Outcome::Kind::duplicate) continue;
    if (delivery.messages[i].body.size() > kSampleBytes) continue;
    sample_ = DeadLetter::from(delivery.messages[i], {});
    sampled_at_ = now;
    return;
  }
}

Result<void> InboxSink::complete(Delivery& delivery, Part part, bool started) {
  if (part.count == 0) return {};
  if (started) {
    delivery.under_way = part;
    const auto rows = delivery.session.take();
    if (rows) return written(delivery, part, *rows, false);
    if (!delivery.session.ok()) return fail(delivery.session.judge(rows.error(), nullptr));
  }
  return write(delivery, part);
}

Result<void> InboxSink::written(Delivery& delivery, Part part, const postgres::Rows& rows,
                                bool raw) {
  delivery.unconfirmed = true;  // unless a new row is written below
  delivery.again_unconfirmed = false;
  if (auto noted = note(delivery, part, rows, raw); !noted) return noted;
  delivery.under_way = {};
  rows_ = std::min(rows_ * 2, options_.rows_per_statement);
  const auto outcomes = std::span(delivery.outcomes).subspan(part.first, part.count);
  const bool wrote = std::any_of(outcomes.begin(), outcomes.end(), [](const Outcome& outcome) {
    return outcome.kind == Outcome::Kind::delivered;
  });
  delivery.wrote = delivery.wrote || wrote;
  // The commit of a new row has waited for all that was committed before it.
  delivery.unconfirmed = !wrote || delivery.again_unconfirmed;
  return {};
}

Result<void> InboxSink::write(Delivery& delivery, Part part) {
  const auto rows = insert(delivery, part, false);
  if (rows) return written(delivery, part, *rows, false);
  Error error = delivery.session.judge(rows.error(),
                                       part.count == 1 ? &delivery.messages[part.first] : nullptr);
  if (delivery.session.failed_by_server()) return fail(std::move(error));
  if (part.count == 1) return failed_alone(delivery, part.first, std::move(error));
  const std::size_t half = part.count / 2;
  if (auto done = write(delivery, {part.first, half}); !done) return done;
  return write(delivery, {part.first + half, part.count - half});
}

Result<postgres::Rows> InboxSink::insert(Delivery& delivery, Part part, bool raw) {
  delivery.under_way = part;
  return delivery.session.insert(delivery.messages.subspan(part.first, part.count), raw);
}

/// The outcomes of a statement that returned the ids it stored. If it did not store all messages, a
/// second statement finds out why: the snapshot of the first one may be older than the rows that
/// prevented it from storing.
Result<void> InboxSink::note(Delivery& delivery, Part part, const postgres::Rows& rows, bool raw) {
  const auto outcomes = std::span(delivery.outcomes).subspan(part.first, part.count);
  if (static_cast<std::size_t>(rows.size()) == part.count) {
    std::fill(outcomes.begin(), outcomes.end(), Outcome::delivered());
    return {};
  }
  std::unordered_set<std::string_view> written;
  for (int row = 0; row < rows.size(); ++row) written.insert(rows.text(row, 0));
  std::vector<std::size_t> left;
  std::vector<Message> messages;
  for (std::size_t i = part.first; i < part.first + part.count; ++i) {
    const bool is_known = target_->ids_are_text && !target_->may_change_rows;
    if (is_known && written.erase(delivery.messages[i].id) > 0) {
      delivery.outcomes[i] = Outcome::delivered();
    } else {
      left.push_back(i);
      messages.push_back(delivery.messages[i]);
    }
  }
  const auto found = delivery.session.look(messages, raw);
  if (!found) return fail(found.error());
  return settle(delivery, left, fates(*found, std::move(written)));
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
      // The row was deleted in between, or the table now treats different ids as equal. Which row
      // it was is unknown, so the message is tried again: its id is free now.
      if (auto looked = delivery.session.look_at_table(); !looked) return looked;
      outcome = Outcome::unknown(
          share(why_not_stored(fates[i], delivery.messages[indexes[i]], target_->table)));
    } else if (fates[i] == Fate::conflict && may_store_again(delivery)) {
      conflicts.push_back(indexes[i]);
      continue;
    } else {
      outcome = Outcome::rejected(
          share(why_not_stored(fates[i], delivery.messages[indexes[i]], target_->table)));
    }
    outcome.id_conflict = conflict;
  }
  return conflicts.empty() ? Result<void>() : store_again(delivery, conflicts);
}

bool InboxSink::may_store_again(const Delivery& delivery) const {
  return options_.on_id_conflict == OnIdConflict::store && target_->ids_can_grow &&
         !delivery.ids_are_longer;
}

/// Stores messages under longer ids, because other messages have theirs.
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
  Delivery again{delivery.session, messages, outcomes, true};
  const auto done = write(again, {0, messages.size()});
  delivery.again_unconfirmed = again.unconfirmed;
  for (std::size_t i = 0; i < indexes.size(); ++i) {
    Outcome& outcome = delivery.outcomes[indexes[i]];
    outcome = outcomes[i];
    if (outcome.kind == Outcome::Kind::rejected) {
      Error error = why_not_stored(Fate::conflict, delivery.messages[indexes[i]], target_->table);
      error.message +=
          fmt::format("; under the id {}: {}", shown_id(ids[i]), outcome.error->message);
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
            target_->table, shown_id(delivery.messages[index].id), shown_id(id),
            count == 1 ? std::string()
                       : fmt::format("; {} others since the last line like this", count - 1));
}

Result<void> InboxSink::failed_alone(Delivery& delivery, std::size_t index, Error error) {
  const Blame blame = blame_for(delivery.session.diagnosis());
  const bool raised = delivery.session.diagnosis().raised();
  if (blame == Blame::row) return refused(delivery, index, error);
  if (blame == Blame::moment) return fail(std::move(error));
  suspect_.refused(delivery.messages[index].id, SteadyClock::now());
  const auto others = look_at_others(delivery, index);
  if (!others) return fail(others.error());
  if (!suspect_.is_guilty(blame, raised, *others, SteadyClock::now()) &&
      !was_guilty(delivery.messages[index], error.code, *others)) {
    return fail(std::move(error));
  }
  suspect_.clear();
  // The obstacle for this message and the others may be gone by now.
  const auto rows = insert(delivery, {index, 1}, false);
  if (rows) return written(delivery, {index, 1}, *rows, false);
  if (delivery.session.failed_by_server()) return fail(rows.error());
  convictions_.add(accusation(delivery.messages[index], error.code));
  error.error_class = ErrorClass::rejected;
  delivery.outcomes[index] = Outcome::rejected(share(std::move(error)));
  return {};
}

bool InboxSink::was_guilty(const Message& message, std::string_view code,
                           Suspect::Others others) const {
  return others != Suspect::Others::refused && convictions_.has(accusation(message, code));
}

Result<void> InboxSink::write_overdue(Delivery& delivery, std::size_t index) {
  TableSession& session = delivery.session;
  const Message& message = delivery.messages[index];
  const auto others = look_at_others(delivery, index);
  if (!others) return fail(others.error());
  if (Error error = too_slow();
      suspect_.is_guilty(Blame::doubtful, false, *others, SteadyClock::now()) ||
      was_guilty(message, error.code, *others)) {
    suspect_.clear();
    convictions_.add(accusation(message, error.code));
    delivery.outcomes[index] = Outcome::rejected(share(std::move(error)));
    return {};
  }
  if (auto begun = session.begin_patiently(); !begun) return begun;
  const auto rows = insert(delivery, {index, 1}, false);
  delivery.under_way = {};  // a later timeout is not this row's
  if (!session.ok()) return fail(rows.error());
  const postgres::Diagnosis why = rows ? postgres::Diagnosis() : session.diagnosis();
  if (auto ended = session.end(rows.has_value()); !ended) return ended;
  if (rows) {
    suspect_.clear();
    return written(delivery, {index, 1}, *rows, false);
  }
  if (why.state == "57014" && !why.raised()) suspect_.overdue(message.id, SteadyClock::now());
  const Blame blame = blame_for(why);
  if (blame == Blame::moment || blame == Blame::server) {
    return fail(session.judge(rows.error(), why, &message));
  }
  suspect_.clear();
  return write(delivery, {index, 1});
}

Error InboxSink::too_slow() const {
  return {
      ErrorClass::rejected,
      "timeout",
      fmt::format("writing this row into {} took longer than {} ms each time, alone and without "
                  "waiting for a lock",
                  target_->table, options_.operation_timeout.count()),
      fmt::format("see what the triggers and constraints of table {} do with it, or raise "
                  "operation_timeout; then `pgtrickle-relay dlq retry`",
                  target_->table),
      {}};
}

/// Messages to compare with: later ones of this delivery, others each time; then one that was
/// written before. That one was written is no proof that it could be written now.
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
    // The message's own id is there already.
    others.push_back(sample_->to_message(headers));
    others.back().id = delivery.messages[index].id;
  }
  // Other messages may have the ids of all of these, and that of the refused one. The refused one
  // has no row under its longer id.
  const Message& message = delivery.messages[index];
  const std::string free_id =
      target_->ids_can_grow ? id_in_conflict(message) : std::string(message.id);
  for (const Message& other : others) {
    const auto blame = delivery.session.try_to_insert(other, free_id, 2 * kCompared);
    if (!blame) return fail(blame.error());
    if (!*blame) return Suspect::Others::written;
    if (**blame != Blame::row) found = Suspect::Others::refused;
  }
  return found;
}

/// Handles one message that PostgreSQL refused: stored raw if its payload is the reason, else
/// rejected.
Result<void> InboxSink::refused(Delivery& delivery, std::size_t index, const Error& error) {
  if (is_about_a_value(error)) {
    const auto payload = delivery.session.refuses_payload(delivery.messages[index]);
    if (!payload) return fail(payload.error());
    if (*payload) {
      const auto rows = insert(delivery, {index, 1}, true);
      if (rows) return written(delivery, {index, 1}, *rows, true);
      if (delivery.session.failed_by_server() ||
          blame_for(delivery.session.diagnosis()) == Blame::moment) {
        return fail(delivery.session.judge(rows.error(), &delivery.messages[index]));
      }
    }
  }
  delivery.outcomes[index] = Outcome::rejected(share(error));
  return {};
}

void InboxSink::close() {
  target_.reset();
  if (own_pool_) own_pool_->trim({});
}

}  // namespace relay::pg_inbox
