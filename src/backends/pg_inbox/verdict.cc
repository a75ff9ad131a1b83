#include "backends/pg_inbox/verdict.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>

#include "core/text.h"

namespace relay::pg_inbox {

namespace {

using postgres::Connection;
using postgres::Diagnosis;

// https://www.postgresql.org/docs/current/errcodes-appendix.html
struct Rule {
  std::string_view prefix;  // of the SQLSTATE; the first one that fits decides
  Blame reported;           // by PostgreSQL itself
  Blame raised;             // by RAISE, in code on the table
};

constexpr Rule kRules[] = {
    {"21", Blame::row, Blame::row},  // cardinality: a subquery of a trigger
    {"22", Blame::row, Blame::row},
    {"23", Blame::row, Blame::row},
    {"44", Blame::row, Blame::row},  // WITH CHECK OPTION
    {"54", Blame::row, Blame::row},
    {"P0", Blame::row, Blame::row},
    {"40", Blame::moment, Blame::doubtful},
    {"55P03", Blame::moment, Blame::doubtful},    // lock_not_available
    {"53200", Blame::doubtful, Blame::doubtful},  // out_of_memory
    {"53400", Blame::doubtful, Blame::doubtful},  // temp_file_limit
    {"53", Blame::server, Blame::doubtful},
    {"57", Blame::server, Blame::doubtful},
    {"25", Blame::server, Blame::doubtful},
    {"58", Blame::doubtful, Blame::doubtful},  // I/O
    {"08", Blame::doubtful, Blame::doubtful},  // of a connection that a trigger makes
    {"HV", Blame::doubtful, Blame::doubtful},  // foreign data wrappers
    {"26", Blame::server, Blame::row},         // a pooler dropped the statement
};

bool is_row_security(const Diagnosis& diagnosis) {
  return diagnosis.state == "42501" && diagnosis.function == "ExecWithCheckOptions";
}

/// The message quotes only names: of constraints, policies, tables, columns.
bool quotes_names_only(const Diagnosis& diagnosis) {
  const std::string_view state = diagnosis.state;
  return is_row_security(diagnosis) || diagnosis.in_statement || state.starts_with("23") ||
         state.starts_with("44") || state.starts_with("40") || state == "55P03";
}

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

/// A plain name in quotes.
bool is_name(std::string_view quoted) {
  if (quoted.size() < 3 || !quoted.starts_with('"') || !quoted.ends_with('"')) return false;
  const auto name = quoted.substr(1, quoted.size() - 2);
  return std::isdigit(static_cast<unsigned char>(name.front())) == 0 &&
         std::all_of(name.begin(), name.end(), [](char c) { return is_word(c) || c == '.'; });
}

/// Whether a text may quote the contents of a message: it has a word of them.
bool has_words_of(std::string_view text, const Message& message) {
  const auto is_part = [&](std::string_view contents) {
    while (!contents.empty()) {
      const auto end = std::find_if_not(contents.begin(), contents.end(), is_word);
      const auto length = static_cast<std::size_t>(end - contents.begin());
      if (length >= 3 && contains_ignoring_case(text, contents.substr(0, length))) return true;
      contents.remove_prefix(std::max<std::size_t>(length, 1));
    }
    return false;
  };
  return is_part(message.id) || is_part(message.key) || is_part(message.op) ||
         is_part(message.body) ||
         std::any_of(message.headers.begin(), message.headers.end(),
                     [&](const Header& header) { return is_part(header.value); });
}

struct Privilege {
  std::string_view kind;  // as the server's message has it, in English
  std::string_view rights;
};

constexpr Privilege kPrivileges[] = {{"schema", "USAGE"},
                                     {"sequence", "USAGE"},
                                     {"function", "EXECUTE"},
                                     {"procedure", "EXECUTE"},
                                     {"type", "USAGE"}};

/// "permission denied for sequence numbers": GRANT USAGE ON SEQUENCE ...
std::optional<std::string> missing_grant(std::string_view message, const std::string& role) {
  constexpr std::string_view kDenied = "permission denied for ";
  if (!message.starts_with(kDenied)) return std::nullopt;
  message.remove_prefix(kDenied.size());
  for (const auto& [kind, rights] : kPrivileges) {
    if (!message.starts_with(kind) || message.substr(kind.size(), 1) != " ") continue;
    const std::string_view name = message.substr(kind.size() + 1);
    return fmt::format("GRANT {} ON {} {} TO {};", rights, kind, Connection::quote_identifier(name),
                       role);
  }
  return std::nullopt;
}

std::string remedy_for_privilege(const Diagnosis& diagnosis, const Destination& to) {
  if (is_row_security(diagnosis)) {
    return fmt::format(
        "the row security policies of table {} must let the role {} insert and see the row: "
        "CREATE POLICY or ALTER POLICY ... ON {}",
        to.table, to.role, to.table);
  }
  if (auto grant = missing_grant(diagnosis.message, to.role)) return *grant;
  if (!diagnosis.in_code) {
    return fmt::format("GRANT SELECT, INSERT ON {} TO {};", to.table, to.role);
  }
  return fmt::format(
      "triggers and defaults of table {} run as the role {}: GRANT to it what the message names, "
      "or make the function SECURITY DEFINER",
      to.table, to.role);
}

std::string remedy_for(Blame blame, const Diagnosis& diagnosis, const Destination& to) {
  if (diagnosis.state == "42501" && !diagnosis.raised()) {
    return remedy_for_privilege(diagnosis, to);
  }
  if (diagnosis.state == "42P10") {
    return fmt::format("event_id must be unique: ALTER TABLE {} ADD PRIMARY KEY (...);", to.table);
  }
  if (blame == Blame::moment) {
    return "another transaction holds what the row needs: pg_blocking_pids() and pg_stat_activity "
           "show whose. The row is tried again";
  }
  if (blame == Blame::row || blame == Blame::suspect || blame == Blame::doubtful) {
    return fmt::format(
        "change what table {} refuses it for, or the message's source; then `pgtrickle-relay dlq "
        "retry`",
        to.table);
  }
  return {};
}

}  // namespace

Blame blame_for(const Diagnosis& diagnosis) {
  if (diagnosis.in_statement) return Blame::server;
  const auto* rule = std::find_if(std::begin(kRules), std::end(kRules), [&](const Rule& candidate) {
    return std::string_view(diagnosis.state).starts_with(candidate.prefix);
  });
  if (rule == std::end(kRules)) return diagnosis.raised() ? Blame::row : Blame::suspect;
  return diagnosis.raised() ? rule->raised : rule->reported;
}

std::string text_without_values(const Diagnosis& diagnosis, const Message* message) {
  const std::string& text = diagnosis.message;
  if (diagnosis.raised() || quotes_names_only(diagnosis)) return text;
  // Quotes as the server's languages write them. A value may hold quotes itself, so everything from
  // the first to the last one counts.
  constexpr std::array<std::string_view, 8> kQuotes = {"\"",     "\u201c", "\u201d", "\u201e",
                                                       "\u00ab", "\u00bb", "\u300c", "\u300d"};
  std::size_t first = std::string::npos;
  std::size_t end = 0;
  for (const std::string_view quote : kQuotes) {
    const auto found = text.find(quote);
    if (found == std::string::npos) continue;
    first = std::min(first, found);
    end = std::max(end, text.rfind(quote) + quote.size());
  }
  if (first == std::string::npos) return text;
  const bool is_value = diagnosis.state.starts_with("22");
  const auto quoted = std::string_view(text).substr(first, end - first);
  if (!is_value && message != nullptr && is_name(quoted) && !has_words_of(quoted, *message)) {
    return text;
  }
  return text.substr(0, first) + "\"...\"" + text.substr(end);
}

Error judge(Error error, const Diagnosis& diagnosis, const Destination& to,
            const Message* message) {
  if (diagnosis.state.empty() || diagnosis.state != error.code) return error;
  const Blame blame = blame_for(diagnosis);
  error.message = fmt::format("{}: {}", to.endpoint, text_without_values(diagnosis, message));
  if (blame == Blame::row) error.error_class = ErrorClass::rejected;
  if (blame == Blame::doubtful || blame == Blame::moment) error.error_class = ErrorClass::transient;
  if (auto remedy = remedy_for(blame, diagnosis, to); !remedy.empty()) {
    error.remedy = std::move(remedy);
  }
  return error;
}

void Suspect::refused(std::string_view id, Time now) {
  if (!is(id)) {
    id_ = id;
    since_ = now;
    tries_ = 0;
  }
  ++tries_;
  overdue_ = false;
}

void Suspect::overdue(std::string_view id, Time now) {
  refused(id, now);
  overdue_ = true;
}

bool Suspect::is_guilty(Blame blame, bool raised, Others others, Time now) const {
  const bool lasts = tries_ >= kTries && now - since_ >= kPatience;
  const bool lasts_long = tries_ >= kTries && now - since_ >= kLongPatience;
  switch (others) {
    case Others::written:
      return blame == Blame::suspect || lasts;
    case Others::refused:
      // Code on the table that refuses each of many rows refuses them for their contents.
      return raised && lasts_long;
    case Others::none:
      return lasts_long;
  }
  return false;
}

void Convictions::add(std::string message) {
  if (!known_.insert(message).second) return;
  order_.push_back(std::move(message));
  if (order_.size() <= kKept) return;
  known_.erase(order_.front());
  order_.pop_front();
}

bool is_about_a_value(const Error& error) {
  return error.code.starts_with("22") || error.code.starts_with("54");
}

}  // namespace relay::pg_inbox
