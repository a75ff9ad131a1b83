// Opens a Connection.
#include <fmt/core.h>
#include <poll.h>

#include <map>
#include <string>
#include <utility>

#include "core/tls_remedy.h"
#include "postgres/connection.h"
#include "postgres/url.h"

namespace relay::postgres {

namespace {

/// Settings that the program relies on; ALTER ROLE or ALTER DATABASE may say otherwise. Set by
/// statements and not by startup options, which PgBouncer refuses.
constexpr std::string_view kSessionSettings =
    // No name is looked up in a schema that other roles may write to.
    "set search_path to pg_catalog, pg_temp;"
    // How statements are parsed, and values and names written.
    "set standard_conforming_strings to on; set array_nulls to on; set quote_all_identifiers to "
    "off;"
    "set datestyle to 'ISO'; set intervalstyle to 'postgres'; set timezone to 'UTC';"
    "set bytea_output to 'hex'; set extra_float_digits to 1; set row_security to on;"
    // Which rows a statement sees, and that it may write.
    "set default_transaction_isolation to 'read committed';"
    "set default_transaction_read_only to off; set default_transaction_deferrable to off;"
    // A commit that stops waiting for its standby says so in a warning.
    "set client_min_messages to 'notice';"
    // The program has deadlines of its own. A session that waits for work must not be ended.
    "set lock_timeout to 0; set idle_in_transaction_session_timeout to 0;"
    "set idle_session_timeout to 0;"
    // A generic plan of a keyset read, made while the table was small, would be a sequential scan
    // for ever: each execution is planned for its own parameters.
    "set plan_cache_mode to 'force_custom_plan';"
    // Compiling a statement that takes a millisecond takes a hundred.
    "set jit to off;"
    // Code of users may go on when its statement is cancelled, but not when its session is gone.
    // Servers on Windows cannot tell.
    "select set_config('client_connection_check_interval', '5000', false) "
    "where version() !~ 'mingw|Visual C';";

/// How long to wait for a pooler that has no session to spare.
constexpr std::chrono::seconds kProbeTimeout{2};

std::string describe_endpoint(const std::map<std::string, std::string>& values) {
  const auto value = [&](const char* key, std::string_view fallback) {
    const auto found = values.find(key);
    return found == values.end() ? std::string(fallback) : found->second;
  };
  const std::string host = value("host", value("hostaddr", "local socket"));
  return fmt::format("{}:{}/{}", host, value("port", "5432"), value("dbname", value("user", "")));
}

/// libpq reports why a connection was refused in prose only, in the server's language. With verbose
/// messages the SQLSTATE stands in it: "FATAL:  28P01: password authentication failed".
struct Refusal {
  std::string state;
  std::string text;
};

bool is_sqlstate(std::string_view text) {
  return text.size() == 5 &&
         text.find_first_not_of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == std::string_view::npos;
}

Refusal explain(std::string_view message) {
  Refusal refusal;
  while (!message.empty()) {
    const auto end = message.find('\n');
    std::string_view line = message.substr(0, end);
    message.remove_prefix(end == std::string_view::npos ? message.size() : end + 1);
    const auto mark = line.find(":  ");
    std::string cleaned(line);
    if (mark != std::string_view::npos) {
      const std::string_view rest = line.substr(mark + 3);
      if (rest.size() > 7 && is_sqlstate(rest.substr(0, 5)) && rest.substr(5, 2) == ": ") {
        refusal.state = rest.substr(0, 5);
        cleaned = fmt::format("{}: {}", line.substr(0, mark), rest.substr(7));
      } else if (line.find(".c:") != std::string_view::npos) {
        continue;  // the place in the server's source
      }
    }
    // libpq's advice is indented.
    if (cleaned.empty() || cleaned.front() == '\t') continue;
    if (!refusal.text.empty()) refusal.text += "; ";
    refusal.text += cleaned;
  }
  return refusal;
}

/// The error of a connection that failed: no server there, or not the one that was meant.
void advise(Error& error) {
  if (error.message.find("certificate") != std::string::npos) {
    error.error_class = ErrorClass::misconfigured;
    // libpq does not report why OpenSSL did not accept it.
    error.remedy = tls_remedy(
        error.message,
        "give the authority that signed the server's certificate, as sslrootcert in the PostgreSQL "
        "URL or as trusted_root_certs; where that is given, look whether the certificate has "
        "expired: openssl s_client -starttls postgres -connect host:port");
  } else if (error.message.find("does not support SSL") != std::string::npos) {
    error.error_class = ErrorClass::misconfigured;
    error.remedy = "set ssl = on in the server and give it a certificate, or connect without TLS";
  } else {
    error.remedy =
        "check host and port in the PostgreSQL URL, that PostgreSQL runs, and that this machine "
        "reaches it";
  }
}

/// libpq takes the first @ as the end of the credentials, and a slash before it as the beginning of
/// the path. Its error would then show the rest of a password as host, port or database.
bool is_ambiguous(std::string_view url) {
  const auto mark = url.find("://");
  if (mark == std::string_view::npos || !url.starts_with("postgres")) return false;
  const std::string_view rest = url.substr(mark + 3);
  const std::string_view head = rest.substr(0, rest.find_first_of("/?#"));
  const std::string_view plain = rest.substr(0, rest.find('?', head.size()));  // no parameters
  const auto first = plain.find('@');
  if (first != std::string_view::npos) {
    return first >= head.size() || plain.find('@', first + 1) != std::string_view::npos;
  }
  const auto colon = head.find(':');
  const bool port = colon == std::string_view::npos || head.starts_with('[') ||
                    head.find_first_not_of("0123456789,", colon + 1) == std::string_view::npos;
  return !port && head.find(',') == std::string_view::npos && rest.find('@') != rest.npos;
}

}  // namespace

Result<std::unique_ptr<Connection>> Connection::open(const Options& given, std::stop_token stop) {
  Options options = given;
  if (given.read_url) options.url = given.read_url();
  if (is_ambiguous(options.url)) {
    return fail(
        ErrorClass::misconfigured, "postgres_url",
        "the PostgreSQL URL can be read in two ways: the user or the password holds an @ or "
        "a slash as it is",
        "in user and password write %40 for @, %2F for / and %3A for :");
  }
  const auto values = parse_url(options.url);
  if (values.empty() && !options.url.empty()) {
    // libpq's own message may quote a part of the URL, and so the password.
    return fail(ErrorClass::misconfigured, "postgres_url", "the PostgreSQL URL cannot be read",
                "it has the form postgres://user:password@host:port/database?sslmode=...");
  }
  if (!options.host_credentials) {
    for (const char* key : {"passfile", "service", "sslkey", "sslcert"}) {
      if (!values.contains(key)) continue;
      return fail(ErrorClass::misconfigured, "postgres_url",
                  fmt::format("the PostgreSQL URL of a pipeline in SQL cannot use {}: it names "
                              "credentials on the relay's host",
                              key),
                  "configure this pipeline in a file of the relay's host");
    }
  }
  std::unique_ptr<Connection> connection(new Connection);
  connection->endpoint_ = describe_endpoint(values);
  const Deadline deadline = Deadline::after(options.connect_timeout);
  if (auto done = connection->connect(options, deadline, stop); !done) return fail(done.error());
  if (auto done = connection->configure(options, deadline, stop); !done) return fail(done.error());
  if (options.keepalive && pools_transactions(*connection, options, stop)) {
    return fail(ErrorClass::misconfigured, "transaction_pooling",
                fmt::format("{}: a pooler gives each transaction another session, and the relay "
                            "keeps settings, statements and leases in its sessions",
                            connection->endpoint_),
                "connect to PostgreSQL directly, or to a pool in session mode (pool_mode = session "
                "of PgBouncer)");
  }
  return connection;
}

/// A pooler reports a process id of its own. One that pools transactions gives the session that was
/// just used to the next client, or another one to this client while that is in a transaction.
/// (This check may miss a pool that other clients use at the same moment: then later errors of the
/// session show it.)
bool Connection::pools_transactions(Connection& session, const Options& options,
                                    std::stop_token stop) {
  constexpr std::string_view kProcess = "select pg_backend_pid()";
  const Deadline deadline = Deadline::after(kProbeTimeout);
  const auto process = session.query(kProcess, {}, deadline, stop);
  if (!process || process->integer(0, 0) == PQbackendPID(session.handle_.get())) return false;
  Options other = options;
  other.keepalive = false;
  const auto probe = open(other, stop);
  if (!probe || !(*probe)->script("begin", deadline, stop)) return false;
  const auto its = (*probe)->query(kProcess, {}, deadline, stop);
  const auto again = session.query(kProcess, {}, deadline, stop);
  return (its && its->integer(0, 0) == process->integer(0, 0)) ||
         (again && again->integer(0, 0) != process->integer(0, 0)) || !again;
}

Result<void> Connection::connect(const Options& options, Deadline deadline, std::stop_token stop) {
  // The URL may override the parameters before it, and not those behind it.
  // tcp_user_timeout bounds the SYN as well, so that a dead first host of several is given up in
  // time.
  const std::string user_timeout = options.keepalive ? "5000" : "10000";
  std::vector<std::pair<const char*, std::string>> settings = {
      {"keepalives", "1"},
      {"keepalives_idle", options.keepalive ? "2" : "10"},
      {"keepalives_interval", options.keepalive ? "1" : "3"},
      {"keepalives_count", "3"},
      {"tcp_user_timeout", user_timeout},
      {"dbname", options.url},
      {"application_name", options.application_name},
      {"client_encoding", "UTF8"},
  };
  if (options.replication) settings.push_back({"replication", "database"});
  if (!options.host_credentials) {
    // A password parameter, even an invalid one, takes precedence over PGPASSWORD and files.
    constexpr const char* kNowhere = "/nonexistent/pgtrickle-relay";
    settings.insert(settings.begin(), {{"password", "none"}, {"sslcert", kNowhere}});
    settings.push_back({"passfile", kNowhere});
  }
  std::vector<const char*> keys;
  std::vector<const char*> texts;
  for (const auto& [key, text] : settings) {
    keys.push_back(key);
    texts.push_back(text.c_str());
  }
  keys.push_back(nullptr);
  texts.push_back(nullptr);
  handle_.reset(PQconnectStartParams(keys.data(), texts.data(), 1));
  if (!handle_) throw std::bad_alloc();
  PQsetErrorVerbosity(handle_.get(), PQERRORS_VERBOSE);
  PQsetNoticeReceiver(handle_.get(), on_notice, this);

  PostgresPollingStatusType state = PGRES_POLLING_WRITING;
  while (PQstatus(handle_.get()) != CONNECTION_BAD && state != PGRES_POLLING_OK &&
         state != PGRES_POLLING_FAILED) {
    const short events = state == PGRES_POLLING_WRITING ? POLLOUT : POLLIN;
    if (auto ready = wait(events, deadline, stop); !ready) {
      return fail(ready.error().in_context("connecting"));
    }
    state = PQconnectPoll(handle_.get());
  }
  if (PQstatus(handle_.get()) != CONNECTION_OK) {
    const Refusal refusal = explain(PQerrorMessage(handle_.get()));
    broken_ = true;
    Error error = error_of_state(
        refusal.state, fmt::format("connecting to PostgreSQL at {}: {}", endpoint_, refusal.text));
    if (refusal.state.empty()) advise(error);
    return fail(std::move(error));
  }
  PQsetErrorVerbosity(handle_.get(), PQERRORS_TERSE);
  PQsetnonblocking(handle_.get(), 1);
  return {};
}

Result<void> Connection::renew(const Options& options, Deadline deadline, std::stop_token stop) {
  prepared_.clear();
  if (auto discarded = script("discard all", deadline, stop); !discarded) return discarded;
  return configure(options, deadline, std::move(stop));
}

Result<void> Connection::configure(const Options& options, Deadline deadline,
                                   std::stop_token stop) {
  // First the settings that could end this script itself.
  std::string sql;
  if (PQserverVersion(handle_.get()) >= 170000) sql += "set transaction_timeout to 0;";
  sql += fmt::format("set statement_timeout to {};", options.statement_timeout.count());
  sql += kSessionSettings;
  if (options.keepalive) {
    sql +=
        "set tcp_keepalives_idle to 2; set tcp_keepalives_interval to 1;"
        "set tcp_keepalives_count to 3; set tcp_user_timeout to 5000;";
  }
  return script(sql, deadline, stop);
}

}  // namespace relay::postgres
