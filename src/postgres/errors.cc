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
    {"3F", ErrorClass::misconfigured, ""},
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

Error error_of(const PGresult* result, std::string_view endpoint) {
  std::string message = fmt::format("{}: {}", endpoint, field(result, PG_DIAG_MESSAGE_PRIMARY));
  if (const auto detail = field(result, PG_DIAG_MESSAGE_DETAIL); !detail.empty()) {
    message += fmt::format(" ({})", detail);
  }
  Error error = error_of_state(field(result, PG_DIAG_SQLSTATE), std::move(message));
  if (auto hint = field(result, PG_DIAG_MESSAGE_HINT); !hint.empty())
    error.remedy = std::move(hint);
  return error;
}

}  // namespace relay::postgres
