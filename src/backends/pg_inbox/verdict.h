#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_set>

#include "core/deadline.h"
#include "core/error.h"
#include "core/message.h"
#include "postgres/connection.h"

namespace relay::pg_inbox {

/// The cause of a failed statement, as far as its error tells.
enum class Blame : std::uint8_t {
  row,       ///< a value, or a code that the author of a trigger chose: no retry can help
  suspect,   ///< the row's own, if another row can be written; else that of the table
  doubtful,  ///< as suspect, or a passing problem that code on the table met or reports
  moment,    ///< a conflict with other transactions: fewer rows meet fewer of them
  server,    ///< the server or the session: it is the same for every row
};

/// Decides by the SQLSTATE and by its reporter, because a trigger may raise any SQLSTATE.
Blame blame_for(const postgres::Diagnosis& diagnosis);

/// Whether a value is invalid, or larger than PostgreSQL takes.
bool is_about_a_value(const Error& error);

/// The message of an error without quoted values of a row. The text of RAISE stays as it is.
/// `message`: the only one that the statement had; null where it had several.
std::string text_without_values(const postgres::Diagnosis& diagnosis, const Message* message);

/// The names of table and role for errors.
struct Destination {
  std::string endpoint;
  std::string table;  ///< qualified and quoted
  std::string role;   ///< quoted
};

/// The error of a failed statement, explained for an inbox, with its remedy. It holds no contents
/// of rows. `error` is returned as it is where the server did not report it. `message`: as above.
Error judge(Error error, const postgres::Diagnosis& diagnosis, const Destination& to,
            const Message* message);

/// Keeps count of a message that is refused alone, over several deliveries, for a reason that may
/// not be its own. Pure.
class Suspect {
 public:
  using Time = SteadyClock::time_point;

  /// What happened to other messages that were tried with it.
  enum class Others : std::uint8_t {
    written,  ///< one can be written
    refused,  ///< none can
    none,     ///< there is none
  };

  /// Contention that code on a table reports passes within this time.
  static constexpr int kTries = 5;
  static constexpr std::chrono::seconds kPatience{10};
  /// The same, if there is no message to compare with.
  static constexpr std::chrono::seconds kLongPatience{60};

  void refused(std::string_view id, Time now);
  /// Its statement timed out.
  void overdue(std::string_view id, Time now);
  /// The message was written, or became a dead letter.
  void clear() { id_.clear(); }
  bool is(std::string_view id) const { return !id_.empty() && id_ == id; }
  bool is_overdue(std::string_view id) const { return overdue_ && is(id); }
  int tries() const { return tries_; }

  /// Whether the reason is the message's own, so that it goes to the dead letters.
  bool is_guilty(Blame blame, bool raised, Others others, Time now) const;

 private:
  std::string id_;
  Time since_;
  int tries_ = 0;
  bool overdue_ = false;
};

/// The messages that became dead letters after several tries. A sender that gave up waiting before
/// sends its message again, and then gets the answer at once. Pure.
class Convictions {
 public:
  /// The oldest ones are forgotten.
  static constexpr std::size_t kKept = 1024;

  void add(std::string message);
  bool has(const std::string& message) const { return known_.contains(message); }

 private:
  std::unordered_set<std::string> known_;
  std::deque<std::string> order_;
};

}  // namespace relay::pg_inbox
