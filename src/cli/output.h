#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "cli/context.h"

namespace relay::cli {

/// Runs a query and prints what it gives: aligned columns under their names, or with --json an
/// array of objects. Secrets in them are masked. Returns an exit code.
int print_query(const Context& context, postgres::Connection& connection, std::string_view sql,
                std::initializer_list<postgres::Param> params);

/// Prints the JSON text that a query gives. Secrets in it are masked. Returns an exit code.
int print_json(postgres::Connection& connection, std::string_view sql,
               std::initializer_list<postgres::Param> params = {});

/// Prints rows as aligned columns; NULL as nothing. On a terminal the head is bold.
void print_table(const postgres::Rows& rows);

/// Prints each column on a line of its own, after its name, and leaves out NULL.
void print_record(const postgres::Rows& rows);

}  // namespace relay::cli
