#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

namespace relay::cli {

/// A column of a table before it is laid out.
struct ColumnNeed {
  std::size_t width = 0;  ///< of its widest cell
  int importance = 0;     ///< the least important columns are left out first
};

/// The widths of the columns in a table of at most `total` columns of a terminal, with two blanks
/// between them; 0: the column is left out. First the widest columns shrink, and only when all have
/// shrunk to the least that can be read, columns are left out. One column always stays.
std::vector<std::size_t> lay_out(std::span<const ColumnNeed> columns, std::size_t total);

/// How important a column of our tables is, by its name.
int importance_of(std::string_view column);

}  // namespace relay::cli
