// The class and the remedy of each SQLSTATE.
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "postgres/connection.h"

namespace relay::postgres {

namespace {

struct Rule {
  std::string_view prefix;  // of the SQLSTATE; the first one that fits decides
  ErrorClass error_class;
  std::string_view remedy;
};

constexpr std::string_view kReadOnly =
    "this server is read-only: a standby, or a former primary. Name all servers in the PostgreSQL "
    "URL and add target_session_attrs=read-write to it, or correct its host";
constexpr std::string_view kPooler =
    "a pooler that gives each transaction another session cannot be used: connect to PostgreSQL "
    "directly, or to a pool in session mode (pool_mode = session of PgBouncer)";
constexpr std::string_view kDatabaseSide =
    "the database side is missing, or of another version: run `pgtrickle-relay init` against this "
    "database";

// https://www.postgresql.org/docs/current/errcodes-appendix.html
constexpr Rule kRules[] = {
    {"28", ErrorClass::misconfigured,
     "check user and password in the PostgreSQL URL, and pg_hba.conf"},
    {"3D", ErrorClass::misconfigured, "check the database name in the PostgreSQL URL"},
    {"42501", ErrorClass::misconfigured,
     "grant the role pgtrickle_relay to the user of the PostgreSQL URL; where it has that role, "
     "rights of pgtrickle_relay were revoked: `pgtrickle-relay check` names those of outboxes, and "
     "`pgtrickle-relay init` grants the others again"},
    {"25006", ErrorClass::transient, kReadOnly},
    {"26", ErrorClass::transient, kPooler},
    {"42P05", ErrorClass::misconfigured, kPooler},
    {"3F", ErrorClass::misconfigured, ""},
    {"53100", ErrorClass::transient, "make room on the server's disk"},
    {"53200", ErrorClass::transient, "give the server more memory, or its sessions less work_mem"},
    {"53300", ErrorClass::transient,
     "the server, the database or the role has no session left: raise max_connections or the "
     "CONNECTION LIMIT, end sessions that are not needed (pg_stat_activity), or lower pool_size; a "
     "relay takes pool_size + 2"},
    {"42", ErrorClass::misconfigured, ""},
    {"0A", ErrorClass::misconfigured, ""},
    {"0L", ErrorClass::misconfigured, ""},
    {"0P", ErrorClass::misconfigured, ""},
    {"F0", ErrorClass::misconfigured, ""},
    {"55000", ErrorClass::misconfigured, ""},  // a function of ours refuses the present state
    {"55P03", ErrorClass::transient,
     "end the transaction that holds the lock, or wait for its end"},
    {"P0001", ErrorClass::misconfigured, ""},
    {"21", ErrorClass::rejected, ""},
    {"22", ErrorClass::rejected, ""},
    {"23", ErrorClass::rejected, ""},
    {"54", ErrorClass::rejected, ""},
};

/// Code of users may raise an error of any length.
constexpr std::size_t kLongestField = 4000;

std::string field(const PGresult* result, int code) {
  const char* text = PQresultErrorField(result, code);
  if (text == nullptr) return {};
  std::string cut(text, strnlen(text, kLongestField));
  if (cut.size() < kLongestField) return cut;
  // Not within a character.
  while (!cut.empty() && (static_cast<unsigned char>(cut.back()) & 0xC0U) == 0x80U) cut.pop_back();
  if (!cut.empty() && (static_cast<unsigned char>(cut.back()) & 0x80U) != 0) cut.pop_back();
  return cut + "...";
}

/// The server's errors about a statement that uses what `init` installs.
bool is_about_database_side(const Diagnosis& diagnosis) {
  if (diagnosis.raised() || diagnosis.in_code) return false;
  const std::string_view state = diagnosis.state;
  return (state == "3F000" || state == "42P01" || state == "42883" || state == "42703") &&
         diagnosis.message.find("pgtrickle") != std::string::npos;
}

/// Data, constraint and check option errors, by the server: "Failing row contains (...)", "Key
/// (...)=(...) already exists", "Token ... is invalid".
bool quotes_a_row(const Diagnosis& diagnosis) {
  if (diagnosis.raised()) return false;
  const std::string_view state = diagnosis.state;
  return state.starts_with("22") || state.starts_with("23") || state.starts_with("44");
}

}  // namespace

Error error_of_state(std::string_view state, std::string message) {
  Error error;
  error.code = state.empty() ? "connection" : std::string(state);
  error.message = std::move(message);
  const auto* rule = std::find_if(std::begin(kRules), std::end(kRules), [&](const Rule& candidate) {
    return state.starts_with(candidate.prefix);
  });
  if (rule != std::end(kRules)) {
    error.error_class = rule->error_class;
    error.remedy = rule->remedy;
  }
  return error;
}

Diagnosis diagnosis_of(const PGresult* result) {
  Diagnosis diagnosis;
  diagnosis.state = field(result, PG_DIAG_SQLSTATE);
  diagnosis.message = field(result, PG_DIAG_MESSAGE_PRIMARY);
  diagnosis.function = field(result, PG_DIAG_SOURCE_FUNCTION);
  diagnosis.in_code = !field(result, PG_DIAG_CONTEXT).empty();
  diagnosis.in_statement = !field(result, PG_DIAG_STATEMENT_POSITION).empty();
  return diagnosis;
}

Error error_of(const PGresult* result, std::string_view endpoint) {
  const Diagnosis diagnosis = diagnosis_of(result);
  // An error of libpq itself, such as no memory for a row, has no fields.
  std::string_view said = diagnosis.message;
  if (said.empty()) said = std::string_view(PQresultErrorMessage(result)).substr(0, kLongestField);
  std::string message = fmt::format("{}: {}", endpoint, said.substr(0, said.find('\n')));
  const auto detail = field(result, PG_DIAG_MESSAGE_DETAIL);
  if (!detail.empty() && !quotes_a_row(diagnosis)) message += fmt::format(" ({})", detail);
  Error error = error_of_state(diagnosis.state, std::move(message));
  if (is_about_database_side(diagnosis)) {
    error.remedy = kDatabaseSide;
  } else if (auto hint = field(result, PG_DIAG_MESSAGE_HINT); !hint.empty()) {
    error.remedy = std::move(hint);
  }
  return error;
}

Error on_standby(Error error, std::string_view endpoint) {
  error.error_class = ErrorClass::transient;
  std::string_view said = error.message;
  if (said.starts_with(endpoint)) said.remove_prefix(std::min(said.size(), endpoint.size() + 2));
  error.message =
      fmt::format("{}: this server is a standby: nothing can be written here ({})", endpoint, said);
  error.remedy = kReadOnly;
  return error;
}

}  // namespace relay::postgres
