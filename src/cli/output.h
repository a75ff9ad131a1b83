#pragma once

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/context.h"
#include "cli/terminal.h"

namespace relay::cli {

/// How rows are shown on a terminal: one record has each column on a line of its own.
enum class Shape { table, record };

/// Runs a query and prints what it gives: aligned columns under their names, or with --json an
/// array of objects. Secrets in them are masked. Returns an exit code.
int print_query(const Context& context, postgres::Connection& connection, std::string_view sql,
                std::initializer_list<postgres::Param> params, Shape shape = Shape::table);

/// Prints the JSON text that a query gives. Secrets in it are masked. Returns an exit code.
int print_json(postgres::Connection& connection, std::string_view sql,
               std::initializer_list<postgres::Param> params = {});

/// Prints rows as aligned columns; NULL as nothing. On a terminal the table fits its width: columns
/// are cut, and the least important ones left out and named.
void print_table(const postgres::Rows& rows);

/// The colour of a cell, by its row and column.
using CellColour = std::function<Colour(std::size_t, std::size_t)>;

/// A table as lines that fit the terminal: the head, and a line for each row. `left_out` receives
/// the names of the columns for which there is no room. Cells have no control characters.
std::vector<std::string> table_lines(const Terminal& terminal, std::span<const std::string> names,
                                     std::span<const std::vector<std::string>> cells,
                                     const CellColour& colour_of_cell,
                                     std::vector<std::string>& left_out);

/// Prints each column on a line of its own, after its name, and leaves out NULL. On a terminal long
/// values are wrapped.
void print_record(const postgres::Rows& rows);

}  // namespace relay::cli
