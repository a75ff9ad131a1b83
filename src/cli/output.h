#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "cli/context.h"

namespace relay::cli {

/// Runs a query and prints what it gives: aligned columns under their names, or with --json an
/// array of objects. Secrets in them are masked. Returns an exit code.
int print_query(const Context& context, postgres::Connection& connection, const std::string& sql,
                std::initializer_list<postgres::Param> params);

/// Prints rows as aligned columns; NULL as nothing. On a terminal the head is underlined.
void print_table(const postgres::Rows& rows);

}  // namespace relay::cli
