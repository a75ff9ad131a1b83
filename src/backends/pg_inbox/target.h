#pragma once

#include <stop_token>
#include <string>
#include <vector>

#include "backends/pg_inbox/options.h"
#include "backends/pg_inbox/row_values.h"
#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"

namespace relay::pg_inbox {

/// The table that messages are written to, as it was found in the database.
struct Target {
  struct Column {
    InboxField field;
    std::string name;
    std::string type;  ///< as PostgreSQL writes it, with its length or precision
    std::string cast;  ///< the same type without them, qualified
    ColumnKind kind;
    int limit = 0;  ///< of a type with a length: how many characters it holds; 0: any number
  };
  std::string table;  ///< qualified and quoted
  std::vector<Column> columns;
  /// The ids are stored letter by letter. Else the column's type may write them differently.
  bool ids_are_text = true;
  bool ids_can_grow = true;  ///< the column takes an id with a suffix
  /// The stored row and its id may differ from what was sent: a BEFORE trigger, or the table behind
  /// a view, may change them.
  bool may_change_rows = false;
  std::string insert;  ///< writes messages; see insert_statement
  std::string look;    ///< looks up ids; see look_statement

  /// The fields that decide whether two messages are the same one, the id first.
  std::vector<Column> compared() const;
};

/// Finds the table, creates the inbox if it is absent (unless `looks_only`: the target then has no
/// columns), and checks that it can take messages. Misconfigured: there is no such table, it lacks
/// a column or does not fit for messages, or the role may not write to it.
Result<Target> open_target(postgres::Connection& connection, const Options& options,
                           Deadline deadline, std::stop_token stop);

}  // namespace relay::pg_inbox
