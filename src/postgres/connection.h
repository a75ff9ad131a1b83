#pragma once

#include <libpq-fe.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"
#include "core/stop_event.h"

namespace relay::postgres {

struct ResultDeleter {
  void operator()(PGresult* result) const { PQclear(result); }
};
using PgResult = std::unique_ptr<PGresult, ResultDeleter>;

/// A parameter in text form; nothing is NULL.
using Param = std::optional<std::string>;

/// The rows that a statement gave. Fields are text, valid as long as this object.
class Rows {
 public:
  Rows() = default;
  explicit Rows(PgResult result) : result_(std::move(result)) {}

  int size() const { return result_ ? PQntuples(result_.get()) : 0; }
  bool empty() const { return size() == 0; }
  bool is_null(int row, int column) const { return PQgetisnull(result_.get(), row, column) != 0; }
  std::string_view text(int row, int column) const {
    return {PQgetvalue(result_.get(), row, column),
            static_cast<std::size_t>(PQgetlength(result_.get(), row, column))};
  }
  std::int64_t integer(int row, int column) const;  ///< 0 for NULL
  bool boolean(int row, int column) const;          ///< false for NULL
  std::int64_t affected() const;
  PGresult* get() const { return result_.get(); }

 private:
  PgResult result_;
};

/// What PostgreSQL says of a failed statement beside its message.
struct Diagnosis {
  std::string state;          ///< SQLSTATE; empty: not reported by the server
  std::string message;        ///< without DETAIL and CONTEXT, which quote rows; may quote values
  std::string function;       ///< in the server's source that reported it
  bool in_code = false;       ///< while a function ran: a trigger, a default, a cast
  bool in_statement = false;  ///< in the text of the statement: nothing ran yet

  /// PL/pgSQL's RAISE: the code and the message are those of the function's author.
  bool raised() const { return function == "exec_stmt_raise"; }
};

/// One session. One thread at a time. Every wait ends at the deadline or at a stop; an operation
/// that was given up is cancelled on the server and leaves the connection broken (`ok()` is false).
/// SQLSTATEs become classes: connection and server trouble, serialisation, deadlock, locks are
/// transient; wrong password, missing database, missing privilege, missing object are
/// misconfigured; data errors are rejected.
class Connection {
 public:
  struct Options {
    std::string url;  ///< URI or key=value, as libpq takes it
    /// Gives the URL before each attempt to connect, for a password that was changed since; null:
    /// it stays as it is.
    std::function<std::string()> read_url;
    std::string application_name;  ///< shown in pg_stat_activity
    std::chrono::milliseconds connect_timeout{10000};
    /// Server-side limit for one statement; 0: none.
    std::chrono::milliseconds statement_timeout{0};
    /// Dedicated sessions (locks, LISTEN): short TCP keepalives and tcp_user_timeout, both sides.
    bool keepalive = false;
    /// False: the URL was written by a role that must not use what this process finds on its host:
    /// PGPASSWORD, password files, services and client keys.
    bool host_credentials = true;
    /// A session of the replication protocol (see ReplicationConnection): it takes scripts,
    /// commands and copies, and no statement with parameters.
    bool replication = false;
  };

  static Result<std::unique_ptr<Connection>> open(const Options&, std::stop_token);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// One statement with parameters (prepared once per session by its text), or, without any
  /// parameter and `simple`, several statements as one script.
  Result<Rows> query(std::string_view sql, std::span<const Param> params, Deadline,
                     std::stop_token);
  Result<Rows> query(std::string_view sql, std::initializer_list<Param> params, Deadline deadline,
                     std::stop_token stop) {
    return query(sql, std::span<const Param>(params.begin(), params.size()), deadline, stop);
  }
  /// One statement whose parameters are in PostgreSQL's binary form; it says their types
  /// (`$1::text[]`). A parameter without data is NULL. Rows are text.
  Result<Rows> query_binary(std::string_view sql, std::span<const std::string_view> params,
                            Deadline, std::stop_token);
  /// The same in two steps, so that the caller can do something else while the server works.
  /// No other statement may run in between. (A stale statement is not prepared again here.)
  Result<void> send_binary(std::string_view sql, std::span<const std::string_view> params, Deadline,
                           std::stop_token);
  Result<Rows> take_rows(Deadline deadline, std::stop_token stop) { return finish(deadline, stop); }
  Result<void> script(std::string_view sql, Deadline, std::stop_token);
  /// A script, and the rows of its last statement: for what takes no parameters, as the commands of
  /// the replication protocol.
  Result<Rows> command(std::string_view sql, Deadline, std::stop_token);

  /// The session's socket, for callers that must be able to end it from outside.
  int socket() const;

  /// Frees the notifications that have arrived: code of users may have left LISTEN in the session,
  /// and libpq keeps them until they are taken.
  void drop_notifications();

  /// Resets the session: code of users may have left settings, prepared statements or LISTEN in
  /// it. `options` are those that it was opened with.
  Result<void> renew(const Options& options, Deadline, std::stop_token);

  /// Sends a statement whose rows are taken one by one with `next_row`, in binary form if asked.
  /// No other statement may run until `next_row` has returned null or an error.
  enum class Format { text = 0, binary = 1 };
  Result<void> start(std::string_view sql, std::span<const Param> params,
                     Format format = Format::text);
  /// The next row (a PGresult of one tuple), null at the end; waits for it no longer than
  /// `patience`. After `abandon`, the rest is dropped.
  Result<PgResult> next_row(std::chrono::milliseconds patience, std::stop_token);
  /// Cancels a started statement and drops its rows. The connection stays usable where it can.
  void abandon(Deadline);

  /// Runs a command that turns the session into a stream in both directions, such as
  /// START_REPLICATION. From then on only the two functions that follow may be called.
  Result<void> start_stream(std::string_view sql, Deadline, std::stop_token);
  /// The next message of the stream, waited for no longer than `patience`; without data if none
  /// came. An error when the stream has ended, for whatever reason.
  struct StreamMessage {
    struct Free {
      void operator()(char* bytes) const { PQfreemem(bytes); }
    };
    std::unique_ptr<char, Free> memory;
    std::size_t size = 0;

    explicit operator bool() const { return memory != nullptr; }
    std::string_view bytes() const { return {memory.get(), size}; }
  };
  Result<StreamMessage> receive(std::chrono::milliseconds patience, std::stop_token);
  Result<void> send_to_stream(std::string_view message, Deadline, std::stop_token);

  /// Notifications that arrived, waiting for the first one until the deadline.
  struct Notification {
    std::string channel;
    std::string payload;
  };
  Result<std::vector<Notification>> notifications(Deadline, std::stop_token);

  bool ok() const;
  /// False if the server has ended the session since its last use. Looks only at what the server
  /// has sent.
  bool still_there();
  /// Inside a transaction, or a statement is under way.
  bool in_transaction() const;
  std::string quote_literal(std::string_view text);
  static std::string quote_identifier(std::string_view name);
  /// "host:port/database", without user and password: for messages.
  const std::string& endpoint() const { return endpoint_; }
  /// Of the last statement that failed.
  const Diagnosis& diagnosis() const { return diagnosis_; }
  PGconn* handle() const { return handle_.get(); }

 private:
  struct Closer {
    void operator()(PGconn* handle) const { PQfinish(handle); }
  };
  struct Prepared {
    std::string sql;
    std::string name;
    std::uint64_t used;
  };
  std::unique_ptr<PGconn, Closer> handle_;
  std::string endpoint_;
  std::vector<Prepared> prepared_;
  std::uint64_t uses_ = 0;
  bool broken_ = false;
  bool streaming_ = false;
  bool unreplicated_ = false;  ///< a commit stopped waiting for its synchronous standby
  Diagnosis diagnosis_;
  std::optional<StopEvent> stopped_;

  Connection() = default;
  Result<void> connect(const Options& options, Deadline, std::stop_token);
  Result<void> configure(const Options& options, Deadline, std::stop_token);
  enum class Ready { yes, timed_out, stopped };
  Ready poll_socket(short events, Deadline, std::stop_token);
  Result<void> wait(short events, Deadline, std::stop_token);
  Result<void> flush(Deadline, std::stop_token);
  Result<PgResult> take_result(Deadline, std::stop_token);
  Result<Rows> finish(Deadline, std::stop_token);
  Result<StreamMessage> end_of_stream(std::stop_token);
  Error failed(const PGresult* result);
  bool is_refused_on_standby() const;
  static bool pools_transactions(Connection& session, const Options& options, std::stop_token stop);
  static void on_notice(void* connection, const PGresult* notice);
  Result<std::string> prepare(std::string_view sql, Deadline, std::stop_token);
  Result<void> forget_oldest(Deadline, std::stop_token);
  Result<void> send(const std::string& name, std::span<const Param> params, Format format);
  Result<Rows> run_once(std::string_view sql, std::span<const Param> params, Deadline,
                        std::stop_token);
  bool forget(std::string_view sql);
  Error give_up(ErrorClass error_class, std::string_view code, std::string_view why);
  Error connection_error(std::string_view doing);
};

/// The error that an SQLSTATE stands for (empty: the connection itself failed, which is transient).
Error error_of_state(std::string_view state, std::string message);

Diagnosis diagnosis_of(const PGresult* result);

/// A failed statement as an Error: class by SQLSTATE, code = SQLSTATE, message with detail, and the
/// hint as remedy. The details that PostgreSQL itself gives of a refused value or row quote it, and
/// are left out.
Error error_of(const PGresult* result, std::string_view endpoint);

/// The error of a statement that a standby refused.
Error on_standby(Error error, std::string_view endpoint);

}  // namespace relay::postgres
