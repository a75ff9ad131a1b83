#pragma once

#include <stop_token>
#include <string>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"
#include "inbox/options.h"
#include "inbox/row_values.h"
#include "postgres/connection.h"

namespace relay::inbox {

/// The table that messages are written to, as the database has it now.
struct Target {
  struct Column {
    InboxField field;
    std::string name;
    std::string type;  ///< as PostgreSQL writes it
    ColumnKind kind;
  };
  std::string table;  ///< qualified and quoted
  std::vector<Column> columns;
  /// Ids come back as they were sent; else their numbers in the statement come back.
  bool ids_are_text = true;
  bool ids_are_of_users = false;  ///< of a type that is not the server's own
  std::string insert;  ///< the statement: an array a column; a row for each id that was new
};

/// Finds the table, makes the inbox where it is absent (unless `looks_only`: the target then has no
/// columns), and looks at its columns. Misconfigured: there is no such table, it lacks a column, or
/// we may not write to it.
Result<Target> open_target(postgres::Connection& connection, const Options& options,
                           Deadline deadline, std::stop_token stop);

/// Whether the table takes rows now: an error where it is locked against writers, or refuses us.
/// Writes nothing and fires no trigger.
Result<void> see_that_it_takes_rows(postgres::Connection& connection, const Target& target,
                                    Deadline deadline, std::stop_token stop);

/// The statement for a table and its columns.
std::string insert_statement(const Target& target, std::string_view quoted_event_id);

}  // namespace relay::inbox
