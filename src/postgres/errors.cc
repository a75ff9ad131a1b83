// SQLSTATEs as what can be done about them.
#include <fmt/core.h>

#include <algorithm>
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

// https://www.postgresql.org/docs/current/errcodes-appendix.html
constexpr Rule kRules[] = {
    {"28", ErrorClass::misconfigured,
     "check user and password in the PostgreSQL URL, and pg_hba.conf"},
    {"3D", ErrorClass::misconfigured, "check the database name in the PostgreSQL URL"},
    {"42501", ErrorClass::misconfigured,
     "grant the role pgtrickle_relay to the user of the PostgreSQL URL"},
    {"25006", ErrorClass::transient,
     "this server is read-only: a standby, or a former primary. Name all servers in the PostgreSQL "
     "URL and add target_session_attrs=read-write to it, or correct its host"},
    {"3F", ErrorClass::misconfigured, ""},
    {"53100", ErrorClass::transient, "make room on the server's disk"},
    {"42", ErrorClass::misconfigured, ""},
    {"0A", ErrorClass::misconfigured, ""},
    {"0L", ErrorClass::misconfigured, ""},
    {"0P", ErrorClass::misconfigured, ""},
    {"F0", ErrorClass::misconfigured, ""},
    {"55000", ErrorClass::misconfigured, ""},  // a function of ours refuses as things stand
    {"P0001", ErrorClass::misconfigured, ""},
    {"21", ErrorClass::rejected, ""},
    {"22", ErrorClass::rejected, ""},
    {"23", ErrorClass::rejected, ""},
    {"54", ErrorClass::rejected, ""},
};

std::string field(const PGresult* result, int code) {
  const char* text = PQresultErrorField(result, code);
  return text == nullptr ? std::string() : std::string(text);
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
  std::string message = fmt::format("{}: {}", endpoint, diagnosis.message);
  const auto detail = field(result, PG_DIAG_MESSAGE_DETAIL);
  if (!detail.empty() && !quotes_a_row(diagnosis)) message += fmt::format(" ({})", detail);
  Error error = error_of_state(diagnosis.state, std::move(message));
  if (auto hint = field(result, PG_DIAG_MESSAGE_HINT); !hint.empty())
    error.remedy = std::move(hint);
  return error;
}

}  // namespace relay::postgres
