#include "postgres/connection.h"

#include <fmt/core.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <exception>
#include <new>
#include <thread>
#include <utility>

#include "core/log.h"
#include "core/mutex.h"

namespace relay::postgres {

using std::chrono::milliseconds;

namespace {

constexpr std::size_t kPreparedStatements = 64;
constexpr milliseconds kSendTimeout{10000};
constexpr milliseconds kCancelTimeout{1000};

struct CancelDeleter {
  void operator()(PGcancel* cancel) const { PQfreeCancel(cancel); }
};

/// How a request to cancel ended: told by the thread that makes it, awaited by another.
class CancelAttempt {
 public:
  void finish(bool sent) {
    const MutexLock lock(mutex_);
    sent_ = sent;
    ended_.notify_all();
  }
  /// False: the request was not sent, or not in time.
  bool wait(Deadline deadline) {
    const MutexLock lock(mutex_);
    ended_.wait_until(mutex_, deadline.at(),
                      [this]() RELAY_REQUIRES(mutex_) { return sent_.has_value(); });
    return sent_.value_or(false);
  }

 private:
  Mutex mutex_;
  Condition ended_;
  std::optional<bool> sent_ RELAY_GUARDED_BY(mutex_);
};

/// Asks the server to end what it does. False: it did not answer in time. PQcancel opens a
/// connection of its own and blocks without a limit, so it has a thread that may be left behind.
/// Where no thread can be started, closing the session has to do.
bool cancel(PGconn* handle, Deadline deadline) try {
  std::shared_ptr<PGcancel> request(PQgetCancel(handle), CancelDeleter{});
  if (!request) return false;
  auto attempt = std::make_shared<CancelAttempt>();
  std::thread([request, attempt] {
    char why[256];
    attempt->finish(PQcancel(request.get(), why, sizeof why) == 1);
  }).detach();
  return attempt->wait(deadline.earlier(Deadline::after(kCancelTimeout)));
} catch (const std::exception&) {
  return false;
}

std::int64_t to_integer(std::string_view text) {
  std::int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

bool is_error(const PGresult* result) {
  const ExecStatusType status = PQresultStatus(result);
  return status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE;
}

/// The statement has to be prepared again: DDL changed its result, or a pooler discarded it.
bool is_stale(const Diagnosis& diagnosis) {
  return diagnosis.state == "26000" ||
         (diagnosis.state == "0A000" && diagnosis.function == "RevalidateCachedQuery");
}

}  // namespace

std::int64_t Rows::integer(int row, int column) const {
  return to_integer(text(row, column));
}

bool Rows::boolean(int row, int column) const {
  return text(row, column) == "t";
}

std::int64_t Rows::affected() const {
  return result_ ? to_integer(PQcmdTuples(result_.get())) : 0;
}

int Connection::socket() const {
  return PQsocket(handle_.get());
}

Connection::~Connection() {
  // If the session were only closed, the server would go on until it has something to send.
  if (handle_ && !broken_ && PQtransactionStatus(handle_.get()) == PQTRANS_ACTIVE) {
    cancel(handle_.get(), Deadline::after(kCancelTimeout));
  }
}

bool Connection::ok() const {
  return handle_ && !broken_ && PQstatus(handle_.get()) == CONNECTION_OK;
}

bool Connection::still_there() {
  if (!ok()) return false;
  pollfd fd{PQsocket(handle_.get()), POLLIN, 0};
  if (::poll(&fd, 1, 0) == 0) return true;
  return PQconsumeInput(handle_.get()) == 1 && PQstatus(handle_.get()) == CONNECTION_OK;
}

bool Connection::in_transaction() const {
  return PQtransactionStatus(handle_.get()) != PQTRANS_IDLE;
}

std::string Connection::quote_literal(std::string_view text) {
  char* quoted = PQescapeLiteral(handle_.get(), text.data(), text.size());
  if (quoted == nullptr) return "NULL";
  std::string result(quoted);
  PQfreemem(quoted);
  return result;
}

std::string Connection::quote_identifier(std::string_view name) {
  std::string quoted = "\"";
  for (const char c : name) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

Error Connection::connection_error(std::string_view doing) {
  diagnosis_ = {};
  broken_ = true;
  streaming_ = false;
  // The first line says what happened, the following ones a possible reason.
  std::string_view text = PQerrorMessage(handle_.get());
  text = text.substr(0, text.find('\n'));
  return Error{ErrorClass::transient,
               "connection",
               fmt::format("{} PostgreSQL at {}: {}", doing, endpoint_, text),
               "",
               {}};
}

/// Ends an operation whose caller has stopped waiting. Its outcome is unknown, so the session ends
/// with it.
Error Connection::give_up(ErrorClass error_class, std::string_view code, std::string_view why) {
  const bool established = !broken_ && PQstatus(handle_.get()) == CONNECTION_OK;
  if (established && PQtransactionStatus(handle_.get()) == PQTRANS_ACTIVE) {
    cancel(handle_.get(), Deadline::after(kCancelTimeout));
  }
  diagnosis_ = {};
  broken_ = true;
  streaming_ = false;
  return Error{
      error_class, std::string(code), fmt::format("PostgreSQL at {}: {}", endpoint_, why), "", {}};
}

Connection::Ready Connection::poll_socket(short events, Deadline deadline, std::stop_token stop) {
  if (stop.stop_requested()) return Ready::stopped;
  // Made once: later waits of this connection are mostly for the same stop.
  if (stop.stop_possible() && !(stopped_ && stopped_->is_of(stop))) stopped_.emplace(stop);
  // poll ignores a negative descriptor.
  const int stop_fd = stop.stop_possible() ? stopped_->fd() : -1;
  pollfd fds[] = {{PQsocket(handle_.get()), events, 0}, {stop_fd, POLLIN, 0}};
  while (true) {
    const int count = ::poll(fds, 2, static_cast<int>(deadline.left().count()));
    if (count < 0 && errno != EINTR) return Ready::yes;  // libpq finds out what it is
    if (count > 0) return fds[0].revents != 0 ? Ready::yes : Ready::stopped;
    if (count == 0 && deadline.passed()) return Ready::timed_out;
  }
}

Result<void> Connection::wait(short events, Deadline deadline, std::stop_token stop) {
  switch (poll_socket(events, deadline, std::move(stop))) {
    case Ready::yes:
      break;
    case Ready::timed_out:
      return fail(give_up(ErrorClass::transient, "timeout", "no answer in time"));
    case Ready::stopped:
      return fail(give_up(ErrorClass::cancelled, "stopped", "stopped while waiting"));
  }
  return {};
}

Result<void> Connection::flush(Deadline deadline, std::stop_token stop) {
  while (true) {
    const int left = PQflush(handle_.get());
    if (left < 0) return fail(connection_error("sending to"));
    if (left == 0) return {};
    // The server may have to send before it can take more.
    if (auto ready = wait(POLLIN | POLLOUT, deadline, stop); !ready) return ready;
    if (PQconsumeInput(handle_.get()) == 0) return fail(connection_error("sending to"));
  }
}

Result<PgResult> Connection::take_result(Deadline deadline, std::stop_token stop) {
  while (PQisBusy(handle_.get()) != 0) {
    // The socket does not block: bytes that have arrived are read without a poll.
    if (PQconsumeInput(handle_.get()) == 0) return fail(connection_error("reading from"));
    if (PQisBusy(handle_.get()) == 0) break;
    if (auto ready = wait(POLLIN, deadline, stop); !ready) return fail(ready.error());
  }
  return PgResult(PQgetResult(handle_.get()));
}

Error Connection::failed(const PGresult* result) {
  diagnosis_ = diagnosis_of(result);
  // A read-only session stays so. (RAISE with this code is no sign of one.)
  if (diagnosis_.state == "25006" && !diagnosis_.raised()) broken_ = true;
  Error error = error_of(result, endpoint_);
  return is_refused_on_standby() ? on_standby(std::move(error), endpoint_) : error;
}

/// Servers before 14 do not report in_hot_standby (libpq-status.html): their own error must do.
bool Connection::is_refused_on_standby() const {
  const char* standby = PQparameterStatus(handle_.get(), "in_hot_standby");
  if (standby == nullptr || std::string_view(standby) != "on" || diagnosis_.raised()) return false;
  return diagnosis_.state == "25006" || diagnosis_.state.starts_with("0A") ||
         diagnosis_.state == "55000";
}

void Connection::on_notice(void* connection, const PGresult* notice) {
  auto& self = *static_cast<Connection*>(connection);
  const Diagnosis diagnosis = diagnosis_of(notice);
  // The text is in the server's language.
  if (diagnosis.function == "SyncRepWaitForLSN") self.unreplicated_ = true;
  log::debug("postgres_notice", "", "{}: {}", self.endpoint_, diagnosis.message);
}

/// Takes all results of what was sent, and gives the last one, or the first error.
Result<Rows> Connection::finish(Deadline deadline, std::stop_token stop) {
  PgResult last;
  std::optional<Error> error;
  while (true) {
    auto result = take_result(deadline, stop);
    if (!result) return fail(result.error());
    if (!*result) break;
    const ExecStatusType status = PQresultStatus(result->get());
    if (is_error(result->get()) && !error) error = failed(result->get());
    if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
      return fail(
          give_up(ErrorClass::misconfigured, "copy", "COPY is not a statement to run here"));
    }
    last = std::move(*result);
  }
  if (PQstatus(handle_.get()) != CONNECTION_OK) {
    // The session ended under the statement: whatever the reason, a new one may succeed.
    Error lost = connection_error("running a statement on");
    if (error) lost.message = error->message;
    return fail(std::move(lost));
  }
  const bool unreplicated = std::exchange(unreplicated_, false);
  if (error) return fail(std::move(*error));
  if (unreplicated) {
    diagnosis_ = {};
    return fail(
        ErrorClass::transient, "not_replicated",
        fmt::format("PostgreSQL at {}: a commit was cancelled while it waited for the synchronous "
                    "standby: a failover could lose it",
                    endpoint_),
        "see in pg_stat_replication why the standby does not answer, or take it out of "
        "synchronous_standby_names");
  }
  return Rows(std::move(last));
}

Result<void> Connection::script(std::string_view sql, Deadline deadline, std::stop_token stop) {
  auto rows = command(sql, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  return {};
}

Result<Rows> Connection::command(std::string_view sql, Deadline deadline, std::stop_token stop) {
  if (PQsendQuery(handle_.get(), std::string(sql).c_str()) == 0) {
    return fail(connection_error("sending to"));
  }
  if (auto sent = flush(deadline, stop); !sent) return fail(sent.error());
  return finish(deadline, stop);
}

Result<void> Connection::start_stream(std::string_view sql, Deadline deadline,
                                      std::stop_token stop) {
  if (PQsendQuery(handle_.get(), std::string(sql).c_str()) == 0) {
    return fail(connection_error("sending to"));
  }
  if (auto sent = flush(deadline, stop); !sent) return sent;
  const auto answer = take_result(deadline, stop);
  if (!answer) return fail(answer.error());
  if (PQresultStatus(answer->get()) == PGRES_COPY_BOTH) return {};
  if (!is_error(answer->get())) {
    return fail(give_up(ErrorClass::misconfigured, "stream", "the command started no stream"));
  }
  Error error = failed(answer->get());
  if (auto rest = finish(deadline, stop); !rest) return fail(std::move(error));
  return fail(std::move(error));
}

Result<Connection::StreamMessage> Connection::receive(milliseconds patience, std::stop_token stop) {
  const Deadline deadline = Deadline::after(patience);
  while (true) {
    char* memory = nullptr;
    const int size = PQgetCopyData(handle_.get(), &memory, 1);
    if (size > 0) return StreamMessage{{memory, {}}, static_cast<std::size_t>(size)};
    if (size < 0) return end_of_stream(stop);
    switch (poll_socket(POLLIN, deadline, stop)) {
      case Ready::yes:
        break;
      case Ready::timed_out:
        return StreamMessage{};
      case Ready::stopped:
        return fail(ErrorClass::cancelled, "stopped",
                    fmt::format("PostgreSQL at {}: stopped while waiting", endpoint_));
    }
    if (PQconsumeInput(handle_.get()) == 0) return fail(connection_error("reading from"));
  }
}

/// The reason for which the server has ended the stream.
Result<Connection::StreamMessage> Connection::end_of_stream(std::stop_token stop) {
  auto end = finish(Deadline::after(kSendTimeout), std::move(stop));
  if (!end) return fail(end.error());
  return fail(connection_error("the stream was ended by"));
}

Result<void> Connection::send_to_stream(std::string_view message, Deadline deadline,
                                        std::stop_token stop) {
  while (true) {
    const int sent = PQputCopyData(handle_.get(), message.data(), static_cast<int>(message.size()));
    if (sent < 0) return fail(connection_error("sending to"));
    if (sent > 0) return flush(deadline, std::move(stop));
    if (auto flushed = flush(deadline, stop); !flushed) return flushed;
  }
}

Result<void> Connection::forget_oldest(Deadline deadline, std::stop_token stop) {
  // A failed transaction cannot deallocate: that is left to the next call.
  if (prepared_.size() < kPreparedStatements ||
      PQtransactionStatus(handle_.get()) == PQTRANS_INERROR) {
    return {};
  }
  const auto oldest =
      std::min_element(prepared_.begin(), prepared_.end(),
                       [](const Prepared& a, const Prepared& b) { return a.used < b.used; });
  const std::string sql = "deallocate " + oldest->name;
  prepared_.erase(oldest);
  return script(sql, deadline, stop);
}

Result<std::string> Connection::prepare(std::string_view sql, Deadline deadline,
                                        std::stop_token stop) {
  ++uses_;
  for (Prepared& statement : prepared_) {
    if (statement.sql == sql) {
      statement.used = uses_;
      return statement.name;
    }
  }
  if (auto room = forget_oldest(deadline, stop); !room) return fail(room.error());
  // A pooler's session may hold statements that another client prepared: those are never run.
  const auto client = static_cast<unsigned>(PQbackendPID(handle_.get()));
  Prepared statement{std::string(sql), fmt::format("relay_{:x}_{}", client, uses_), uses_};
  if (PQsendPrepare(handle_.get(), statement.name.c_str(), statement.sql.c_str(), 0, nullptr) ==
      0) {
    return fail(connection_error("sending to"));
  }
  if (auto sent = flush(deadline, stop); !sent) return fail(sent.error());
  if (auto done = finish(deadline, stop); !done) return fail(done.error());
  prepared_.push_back(std::move(statement));
  return prepared_.back().name;
}

bool Connection::forget(std::string_view sql) {
  return std::erase_if(prepared_, [&](const Prepared& one) { return one.sql == sql; }) > 0;
}

Result<void> Connection::send(const std::string& name, std::span<const Param> params,
                              Format format) {
  std::vector<const char*> values;
  values.reserve(params.size());
  for (const Param& param : params) values.push_back(param ? param->c_str() : nullptr);
  if (PQsendQueryPrepared(handle_.get(), name.c_str(), static_cast<int>(values.size()),
                          values.data(), nullptr, nullptr, static_cast<int>(format)) == 0) {
    return fail(connection_error("sending to"));
  }
  return {};
}

Result<Rows> Connection::run_once(std::string_view sql, std::span<const Param> params,
                                  Deadline deadline, std::stop_token stop) {
  const auto name = prepare(sql, deadline, stop);
  if (!name) return fail(name.error());
  if (auto sent = send(*name, params, Format::text); !sent) return fail(sent.error());
  if (auto sent = flush(deadline, stop); !sent) return fail(sent.error());
  return finish(deadline, stop);
}

Result<Rows> Connection::query(std::string_view sql, std::span<const Param> params,
                               Deadline deadline, std::stop_token stop) {
  auto rows = run_once(sql, params, deadline, stop);
  if (!rows && is_stale(diagnosis_) && forget(sql) && !in_transaction()) {
    return run_once(sql, params, deadline, stop);
  }
  return rows;
}

Result<void> Connection::send_binary(std::string_view sql, std::span<const std::string_view> params,
                                     Deadline deadline, std::stop_token stop) {
  const auto name = prepare(sql, deadline, stop);
  if (!name) return fail(name.error());
  std::vector<const char*> values;
  std::vector<int> lengths;
  for (const std::string_view param : params) {
    values.push_back(param.data());
    lengths.push_back(static_cast<int>(param.size()));
  }
  const std::vector<int> formats(params.size(), static_cast<int>(Format::binary));
  if (PQsendQueryPrepared(handle_.get(), name->c_str(), static_cast<int>(values.size()),
                          values.data(), lengths.data(), formats.data(),
                          static_cast<int>(Format::text)) == 0) {
    return fail(connection_error("sending to"));
  }
  return flush(deadline, stop);
}

Result<Rows> Connection::query_binary(std::string_view sql,
                                      std::span<const std::string_view> params, Deadline deadline,
                                      std::stop_token stop) {
  const auto run = [&]() -> Result<Rows> {
    if (auto sent = send_binary(sql, params, deadline, stop); !sent) return fail(sent.error());
    return take_rows(deadline, stop);
  };
  auto rows = run();
  if (!rows && is_stale(diagnosis_) && forget(sql) && !in_transaction()) return run();
  return rows;
}

Result<void> Connection::start(std::string_view sql, std::span<const Param> params, Format format) {
  const Deadline deadline = Deadline::after(kSendTimeout);
  const auto name = prepare(sql, deadline, {});
  if (!name) return fail(name.error());
  if (auto sent = send(*name, params, format); !sent) return sent;
  PQsetSingleRowMode(handle_.get());
  streaming_ = true;
  return flush(deadline, {});
}

Result<PgResult> Connection::next_row(milliseconds patience, std::stop_token stop) {
  if (!streaming_) return PgResult();
  // Most rows have arrived already: reading the clock is not needed for them.
  const bool waits = PQisBusy(handle_.get()) != 0;
  auto result = waits ? take_result(Deadline::after(patience), stop)
                      : Result<PgResult>(PgResult(PQgetResult(handle_.get())));
  if (!result) return result;
  if (*result && PQresultStatus(result->get()) == PGRES_SINGLE_TUPLE) return result;
  streaming_ = false;
  std::optional<Error> error;
  if (*result && is_error(result->get())) error = failed(result->get());
  auto end = finish(Deadline::after(patience), stop);
  if (!end) {
    // The first error is the reason for the last one.
    Error lost = end.error();
    if (error) lost.message = error->message;
    return fail(error && ok() ? std::move(*error) : std::move(lost));
  }
  if (error) {
    // Prepared again when the caller tries again.
    if (is_stale(diagnosis_)) {
      prepared_.clear();
      broken_ = true;
      error->error_class = ErrorClass::transient;
    }
    return fail(std::move(*error));
  }
  return PgResult();
}

void Connection::abandon(Deadline deadline) {
  if (!streaming_) return;
  streaming_ = false;
  if (!cancel(handle_.get(), deadline)) {
    broken_ = true;
    return;
  }
  // Rows that were under way, then either the statement's end or the word that it was cancelled.
  // PQcancel returns when the signal has been sent, so that it cannot hit a later statement: a
  // backend that waits for a command drops it (ProcessInterrupts, tcop/postgres.c).
  [[maybe_unused]] const auto end = finish(deadline, {});
}

Result<std::vector<Connection::Notification>> Connection::notifications(Deadline deadline,
                                                                        std::stop_token stop) {
  std::vector<Notification> found;
  while (true) {
    if (PQconsumeInput(handle_.get()) == 0 || PQstatus(handle_.get()) != CONNECTION_OK) {
      return fail(connection_error("listening to"));
    }
    while (PGnotify* notification = PQnotifies(handle_.get())) {
      found.push_back({notification->relname, notification->extra});
      PQfreemem(notification);
    }
    if (!found.empty()) return found;
    if (poll_socket(POLLIN, deadline, stop) != Ready::yes) return found;
  }
}

void Connection::drop_notifications() {
  while (PGnotify* notification = PQnotifies(handle_.get())) PQfreemem(notification);
}

}  // namespace relay::postgres
