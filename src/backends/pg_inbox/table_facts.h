#pragma once

#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"

namespace relay::pg_inbox {

/// The facts of the catalog that decide whether messages can be written to a table.
struct TableFacts {
  struct Column {
    std::string name;
    std::string type;         ///< of the values, behind any domain, with its length or precision
    std::string type_schema;  ///< the same type's name
    std::string type_name;
    char type_kind = 'b';                 ///< pg_type.typtype
    int modifier = -1;                    ///< pg_attribute.atttypmod; -1: no length or precision
    bool deterministic = true;            ///< its collation
    bool not_null = false;                ///< NOT NULL, and no default
    bool domain_not_null = false;         ///< the same because of its domain: no trigger can help
    bool generated = false;               ///< GENERATED ALWAYS, as an expression or as identity
    std::string forbidden_sequence = {};  ///< that its default uses, and that the role may not use
  };
  struct Index {
    std::string name;
    std::string columns = {};  ///< for messages to people: "event_id, received_at"
    std::string column = {};   ///< the only one; empty: several, or an expression
    bool partial = false;
    bool immediate = true;
    bool valid = true;
    bool exact = true;  ///< distinguishes all values that the type distinguishes
    bool constraint = false;
  };
  std::string table;  ///< qualified and quoted
  std::string role;   ///< of this session, quoted
  char kind = 'r';    ///< pg_class.relkind
  bool may_write = true;
  bool lets_insert = true;  ///< row security has a policy that allows inserting rows
  bool lets_see = true;     ///< and one that allows reading them
  bool before_trigger = false;
  std::string rule = {};  ///< on INSERT
  bool unlogged = false;  ///< it, or one of its partitions
  std::vector<Column> columns = {};
  std::vector<Index> unique_indexes = {};
};

/// Looks a table up: `table` is qualified and quoted. No code of the table runs.
Result<TableFacts> read_table(postgres::Connection& connection, const std::string& table,
                              Deadline deadline, std::stop_token stop);

/// An SQL expression: whether a BEFORE trigger runs for rows that are inserted into the table or
/// one of its partitions. `table`: an expression of type regclass.
std::string has_before_trigger(std::string_view table);

}  // namespace relay::pg_inbox
