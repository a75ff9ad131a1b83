#pragma once

#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"
#include "postgres/connection.h"

namespace relay::pg_inbox {

/// What the catalog says of a table, as far as it decides whether messages can be written there.
struct TableFacts {
  struct Column {
    std::string name;
    std::string type;         ///< of the values, behind any domain, with its length or precision
    std::string type_schema;  ///< the same type's name
    std::string type_name;
    char type_kind = 'b';          ///< pg_type.typtype
    int modifier = -1;             ///< pg_attribute.atttypmod; -1: no length or precision
    bool deterministic = true;     ///< its collation
    bool not_null = false;         ///< NOT NULL, and no default
    bool domain_not_null = false;  ///< the same because of its domain, which no trigger can mend
    bool generated = false;        ///< GENERATED ALWAYS, as an expression or as identity
    std::string forbidden_sequence = {};  ///< what its default draws from, and the role may not use
  };
  struct Index {
    std::string name;
    std::string columns = {};  ///< for people: "event_id, received_at"
    std::string column = {};   ///< the only one; empty: several, or an expression
    bool partial = false;
    bool immediate = true;
    bool valid = true;
    bool exact = true;  ///< keeps apart what the type keeps apart
    bool constraint = false;
  };
  std::string table;  ///< qualified and quoted
  std::string role;   ///< ours, quoted
  char kind = 'r';    ///< pg_class.relkind
  bool may_write = true;
  bool lets_insert = true;  ///< row security has a policy by which some row could be inserted
  bool lets_see = true;     ///< and one by which it could be seen
  bool before_trigger = false;
  std::string rule = {};  ///< on INSERT
  bool unlogged = false;  ///< it, or one of its partitions
  std::vector<Column> columns = {};
  std::vector<Index> unique_indexes = {};
};

/// Looks a table up: `table` is qualified and quoted. Nothing of the table's own runs.
Result<TableFacts> read_table(postgres::Connection& connection, const std::string& table,
                              Deadline deadline, std::stop_token stop);

/// An SQL expression: whether a BEFORE trigger runs for rows that are inserted into the table or
/// one of its partitions. `table`: an expression of type regclass.
std::string has_before_trigger(std::string_view table);

}  // namespace relay::pg_inbox
